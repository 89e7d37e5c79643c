"""A record: one partitioned image, written by `partition` and read by `train`. NumPy, Pillow and protobuf only.

A record is stored as a serialised `tf.train.Example` with six features, which TensorFlow Datasets can read:

    image         one JPEG or PNG                label_map     one 16-bit PNG
    caption       UTF-8 text                     object_masks  any number of 1-bit PNGs, so that one can be read alone
    source_id     UTF-8 text                     settings      JSON: how the image was partitioned

Only the label map must be stored: patches, centroids and sizes of the elements follow from it. `elements cache`
adds three features (`CACHED`), each the bytes of little-endian float16 numbers, whose shapes follow from the model:

    latent_mean, latent_logvar    the VAE's posterior of the image    text    the text encoder's features of the caption
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, no_type_check

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from jaxtyping import Bool, Float16, UInt8, UInt16
from PIL import Image, UnidentifiedImageError

DROPPED = 65535
"""The label of a pixel that belongs to no element."""
CACHED = ("latent_mean", "latent_logvar", "text")
"""Precomputed outputs of frozen networks, written by `elements cache`."""


def _example_class() -> Any:
    """`tf.train.Example`, declared here so that neither TensorFlow nor generated code is needed.

    It has its own descriptor pool, because TensorFlow registers the same names in the default one.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def declare(into: Any, name: str, *fields: tuple[str, int, str], repeated: bool = False) -> Any:
        kind = into.add(name=name)
        for number, (field_name, scalar, type_name) in enumerate(fields, start=1):
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            kind.field.add(name=field_name, number=number, label=label, type=scalar, type_name=type_name or None)
        return kind

    messages = file.message_type
    declare(messages, "BytesList", ("value", field.TYPE_BYTES, ""), repeated=True)
    declare(messages, "FloatList", ("value", field.TYPE_FLOAT, ""), repeated=True)
    declare(messages, "Int64List", ("value", field.TYPE_INT64, ""), repeated=True)
    lists = [("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")]
    feature = declare(messages, "Feature", *((name, field.TYPE_MESSAGE, f".tensorflow.{kind}") for name, kind in lists))
    feature.oneof_decl.add(name="kind")
    for member in feature.field:
        member.oneof_index = 0
    entry_type = ".tensorflow.Features.FeatureEntry"
    features = declare(messages, "Features", ("feature", field.TYPE_MESSAGE, entry_type), repeated=True)
    value = ("value", field.TYPE_MESSAGE, ".tensorflow.Feature")
    declare(features.nested_type, "FeatureEntry", ("key", field.TYPE_STRING, ""), value).options.map_entry = True
    declare(messages, "Example", ("features", field.TYPE_MESSAGE, ".tensorflow.Features"))

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example = _example_class()
"""The protobuf message `tf.train.Example`."""


@no_type_check  # it checks itself, with readable messages
@dataclass(frozen=True, eq=False)
class Record:
    """One image, segmented into elements. Raises ValueError that names `source_id` and the invalid field."""

    image: UInt8[np.ndarray, "H W 3"]
    label_map: UInt16[np.ndarray, "H W"]
    """Each pixel's element, in [0, num_elements), or DROPPED."""
    caption: str
    object_masks: Bool[np.ndarray, "M H W"]
    """Objects in the image: any number, and they may overlap."""
    source_id: str
    """Readable name of the image: its path below the photo folder, or a seed."""
    settings: dict[str, Any]
    """How the image was partitioned, as JSON values; `num_elements` (N) is always present."""
    cached: dict[str, Float16[np.ndarray, " numbers"]] = field(default_factory=dict)
    """The features of `CACHED` that the record has."""

    def __post_init__(self) -> None:
        def require(fits: bool, expected: str, got: object) -> None:
            if not fits:
                raise ValueError(f"record {self.source_id!r}: {expected}, got {got}")

        def require_array(name: str, array: np.ndarray, dtype: type, shape: tuple[int | None, ...]) -> None:
            fits = array.dtype == dtype and array.ndim == len(shape)
            fits = fits and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
            expected = f"{np.dtype(dtype)} of shape ({', '.join('?' if side is None else str(side) for side in shape)})"
            require(fits, f"{name} must be {expected}", f"{array.dtype} of shape {array.shape}")

        require_array("image", self.image, np.uint8, (None, None, 3))
        size = self.image.shape[:2]
        require(min(size) > 0, "image must have pixels", f"shape {self.image.shape}")
        require_array("label_map", self.label_map, np.uint16, size)
        require_array("object_masks", self.object_masks, np.bool_, (None, *size))
        require(isinstance(self.settings, dict), "settings must be a dict", repr(self.settings))
        count = self.settings.get("num_elements")
        fits = type(count) is int and 0 < count <= DROPPED
        require(fits, f"settings['num_elements'] must be an integer in [1, {DROPPED}]", repr(count))
        unknown = self.label_map[(self.label_map >= count) & (self.label_map != DROPPED)]
        expected = f"label_map must hold labels below num_elements = {count}, or {DROPPED} (dropped)"
        require(not unknown.size, expected, f"label {unknown.max(initial=0)}")

    def to_example(self, image_format: Literal["jpeg", "png"] = "jpeg", quality: int = 95) -> bytes:
        """Serialise this record as a `tf.train.Example`; equal records give equal bytes.

        JPEG (at `quality`, without chroma subsampling) loses a little of the image; every other field is exact.
        """
        jpeg = {"quality": quality, "subsampling": 0} if image_format == "jpeg" else {}
        features = {
            "image": [_encode(self.image, image_format, **jpeg)],
            "label_map": [_encode(self.label_map, "png")],
            "caption": [self.caption.encode()],
            "object_masks": [_encode(mask, "png") for mask in self.object_masks],
            "source_id": [self.source_id.encode()],
            "settings": [json.dumps(self.settings, sort_keys=True).encode()],
        }
        example = Example()
        for name, values in features.items():
            example.features.feature[name].bytes_list.value.extend(values)
        return with_cached(example, self.cached)

    @classmethod
    def from_example(cls, data: bytes, where: str, choose_masks: Callable[[int], Iterable[int]] = range) -> "Record":
        """Parse a record that `to_example` serialised.

        Args:
          data: a serialised `tf.train.Example`.
          where: name of the record for errors, such as "train.tfrecord record 17".
          choose_masks: maps the number of object masks to the indices to read; by default all.

        Raises:
          ValueError: names `where` and the field that is missing, undecodable or inconsistent.
        """
        fields = _Fields(data, where)

        def picture(name: str, data: bytes, mode: str, expected: str) -> np.ndarray:
            return _picture(data, where, name, mode, expected)

        def numbers(name: str) -> np.ndarray:
            try:
                return np.frombuffer(fields.single(name), "<f2")
            except ValueError as error:
                raise ValueError(f"{where}: field {name!r} must be float16 numbers: {error}") from error

        image = picture("image", fields.single("image"), "RGB", "a JPEG or PNG in RGB")
        label_map = picture("label_map", fields.single("label_map"), "I;16", "a 16-bit grey PNG")
        stored = fields.values("object_masks")
        masks = [picture(f"object_masks[{i}]", stored[i], "1", "a 1-bit PNG") for i in choose_masks(len(stored))]
        if odd := {mask.shape for mask in masks} - {image.shape[:2]}:
            raise ValueError(f"{where}: field 'object_masks' must be of the image's size {image.shape[:2]}, got {odd}")
        object_masks = np.array(masks, bool).reshape(-1, *image.shape[:2])
        try:
            settings = json.loads(fields.text("settings"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: field 'settings' must be JSON: {error}") from error
        caption, source_id = fields.text("caption"), fields.text("source_id")
        cached = {name: numbers(name) for name in CACHED if name in fields}
        try:
            return cls(image, label_map, caption, object_masks, source_id, settings, cached)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def with_cached(example: Any, cached: Mapping[str, Float16[np.ndarray, "..."]]) -> bytes:
    """Serialise a record's `Example` with these features added. The others are copied, so no image is encoded twice."""
    for name, array in cached.items():
        example.features.feature[name].bytes_list.value[:] = [array.astype("<f2").tobytes()]
    return example.SerializeToString(deterministic=True)


def read_source_id(data: bytes, where: str) -> str:
    """Read the `source_id` of a serialised record without decoding images. Raises ValueError like `from_example`."""
    return _Fields(data, where).text("source_id")


class Outline(NamedTuple):
    """A summary of a record, without its pixels."""

    source_id: str
    height: int
    width: int
    num_elements: int
    object_masks: int
    """Number of object masks."""


def read_outline(data: bytes, where: str) -> Outline:
    """Read the outline of a serialised record. Only the image header is decoded, which takes 0.1 ms.

    Raises ValueError like `from_example`.
    """
    fields = _Fields(data, where)
    try:
        width, height = Image.open(io.BytesIO(fields.single("image"))).size
        num_elements = json.loads(fields.text("settings"))["num_elements"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{where}: expected an image and settings with num_elements, got {type(error).__name__}: {error}"
        ) from error
    return Outline(fields.text("source_id"), height, width, num_elements, len(fields.values("object_masks")))


def read_object_masks(
    data: bytes, where: str, choose_masks: Callable[[int], Iterable[int]]
) -> Bool[np.ndarray, "M H W"]:
    """Read only the object masks of a serialised record; the shape is (0, 0, 0) if none is chosen.

    Raises ValueError like `from_example`.
    """
    stored = _Fields(data, where).values("object_masks")
    masks = [_picture(stored[i], where, f"object_masks[{i}]", "1", "a 1-bit PNG") for i in choose_masks(len(stored))]
    return np.array(masks, bool) if masks else np.zeros((0, 0, 0), bool)


class _Fields:
    """The features of a serialised `tf.train.Example`. Raises ValueError naming the record and the field."""

    def __init__(self, data: bytes, where: str):
        self._where = where
        try:
            self._features = Example.FromString(data).features.feature
        except message.DecodeError as error:
            raise ValueError(f"{where}: expected a serialised tf.train.Example: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._features

    def values(self, name: str) -> Any:
        features, where = self._features, self._where
        if name not in features:
            raise ValueError(f"{where}: field {name!r} is missing; the record has {sorted(features)}")
        # An empty list may be stored without a kind.
        if features[name].WhichOneof("kind") not in ("bytes_list", None):
            raise ValueError(f"{where}: field {name!r} must be a bytes_list, got {features[name].WhichOneof('kind')}")
        return features[name].bytes_list.value

    def single(self, name: str) -> bytes:
        values = self.values(name)
        if len(values) != 1:
            raise ValueError(f"{self._where}: field {name!r} must hold one value, got {len(values)}")
        return values[0]

    def text(self, name: str) -> str:
        try:
            return self.single(name).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self._where}: field {name!r} must be UTF-8 text: {error}") from error


def _picture(data: bytes, where: str, name: str, mode: str, expected: str) -> np.ndarray:
    """Decode the pixels of field `name`, which must have Pillow's `mode`. Raises ValueError with what is `expected`."""
    try:
        decoded = Image.open(io.BytesIO(data))
        if decoded.mode != mode:
            raise ValueError(f"pixels have Pillow's mode {decoded.mode!r}")
        return np.asarray(decoded)
    except UnidentifiedImageError as error:
        raise ValueError(f"{where}: field {name!r} must be {expected}: it is not an image") from error
    except Exception as error:  # Pillow raises anything for truncated or damaged data
        raise ValueError(f"{where}: field {name!r} must be {expected}: {error}") from error


def _encode(array: np.ndarray, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, image_format, **options)
    return buffer.getvalue()
