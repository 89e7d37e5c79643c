"""Object masks of photographs (PNG files, Parquet columns, COCO's run lengths and polygons), and their filter.

Training drops the elements under a random object mask (Section 3.3). The paper takes its masks from Semantic-SAM.
"""

import functools
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int, Shaped
from PIL import Image
from scipy import ndimage

from elements_jax.bounds import FieldError, require_within
from elements_jax.data.atomic import read_file
from partition.sources.sample import SUFFIXES, Sample


@dataclass(frozen=True)
class MaskFilter:
    """Filter of object masks. Shares are of the square image. All four are our choice: the paper gives none."""

    min_iou: float = 0.88
    """Least estimate by SAM of a mask's IoU (`predicted_iou`), the default of its automatic generator."""
    min_stability: float = 0.95
    """Least `stability_score` of a mask. Both are also the thresholds of SA-1B. Masks without these scores are kept."""
    min_area: float = 0.002
    """Least share of a mask, half an element of the paper's 16 x 16: a smaller mask would drop the whole element around
    it."""
    max_area: float = 0.5
    """Largest share of a mask: a larger one is background rather than an object, and leaves few elements to learn
    from."""

    def __post_init__(self) -> None:
        require_within(self, min_iou=(-1000, 1000), min_stability=(-1000, 1000))
        if not 0 <= self.min_area <= self.max_area <= 1:
            expected = f"must satisfy 0 <= min <= max <= 1, got {self.min_area} and {self.max_area}"
            raise FieldError(self, ("min_area", "max_area"), expected)

    def trusts(self, annotation: Mapping[str, Any]) -> bool:
        """Return whether a mask's scores, under SAM's names, reach the thresholds."""
        numbers = {"predicted_iou": self.min_iou, "stability_score": self.min_stability}
        return all(annotation.get(name, math.inf) >= least for name, least in numbers.items())

    def fits(self, mask: Bool[np.ndarray, "H W"]) -> bool:
        """Return whether a mask of the square image has a pixel and the right size."""
        return bool(mask.any()) and self.min_area <= mask.mean() <= self.max_area


DEFAULT_FILTER = MaskFilter()
LARGEST_JSON = 8 << 30
"""Largest COCO file in bytes: those of large data sets take gigabytes."""


@dataclass(frozen=True)
class LeftOut:
    """An annotation that gives no object mask. Its photograph is still used."""

    reason: str
    """Short reason by which a job counts annotations."""
    detail: str
    """The file, the annotation and the error."""


NO_SEGMENTATION = "no segmentation"
FEW_POINTS = "a polygon of fewer than three points"
OTHER_SIZE = "of another size than the photograph"
NOT_READABLE = "not readable"
BLURRED = "a label map with blurred edges"
NOT_PNG = "an image that is not a PNG"
NOT_TRUSTED = "scores below --mask-filter"
OTHER_AREA = "area outside --mask-filter"
UNLISTED = "of an image that the file does not list"


class _Misfit(ValueError):
    """An error in an annotation, with the reason by which it is counted."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class MaskSource(Protocol):
    """A place where object masks are stored."""

    def find(
        self, sample: Sample, shape: tuple[int, int], keep: MaskFilter
    ) -> Iterator[Bool[np.ndarray, "h w"] | LeftOut]:
        """Yield the masks of one photo with this (height, width), and the skipped annotations: those that `keep` does
        not trust, that cannot be read, or that have another size."""

    def unlisted(self) -> int:
        """Return the number of annotations whose image the source does not list."""


def mask_source(path: Path) -> MaskSource:
    """Open a folder of masks or one COCO file. Raises ValueError if it is neither, or the file is not COCO's."""
    if path.is_dir():
        return MaskFolder(path)
    if path.is_file() and path.suffix.lower() == ".json":
        _index(path)
        return CocoFile(path)
    raise ValueError(f"{path}: neither a folder of masks nor a COCO file (.json)")


@dataclass(frozen=True)
class MaskFolder:
    """Masks in files that have the photos' names, in subfolders for photos in a subfolder (or tar file).

    These files are read, and their masks combined: STEM.png, a label map (each value but 0 is one object); STEM/*.png,
    one object each (its nonzero pixels); and STEM.json, a list of annotations in COCO's format, as SAM's automatic mask
    generator writes them, or an object with that list under `annotations`, as in SA-1B, or a list of COCO's run
    lengths.
    """

    folder: Path

    def find(
        self, sample: Sample, shape: tuple[int, int], keep: MaskFilter
    ) -> Iterator[Bool[np.ndarray, "h w"] | LeftOut]:
        base = self.folder / _stem(sample.source_id)
        annotations = base.with_name(base.name + ".json")
        for label_map in (base.with_name(base.name + suffix) for suffix in (".png", ".PNG")):
            if label_map.is_file():
                yield from _objects(str(label_map), functools.partial(read_file, label_map), shape)
        for path in sorted(path for path in base.glob("[!.]*") if path.suffix.lower() in SUFFIXES):
            if path.suffix.lower() != ".png":
                yield LeftOut(NOT_PNG, f"{path}: expected a PNG, which keeps masks exactly")
                continue
            try:
                values = _read_png(str(path), functools.partial(read_file, path), shape)
            except _Misfit as error:
                yield LeftOut(error.reason, str(error))
                continue
            if values.ndim == 3:
                values = values[..., : 1 if values.shape[2] == 2 else 3].max(axis=2)  # without the alpha channel
            yield np.not_equal(values, 0)
        if annotations.is_file():
            try:
                content = _read_json(annotations)
                found = content.get("annotations") if isinstance(content, dict) else content
                if not isinstance(found, list):
                    raise ValueError(f"{annotations}: expected a list of annotations, or an object with `annotations`")
            except ValueError as error:
                yield LeftOut(NOT_READABLE, str(error))
            else:
                yield from _decode(annotations, enumerate(found), shape, keep)

    def unlisted(self) -> int:
        return 0  # a folder lists no images


@dataclass(frozen=True)
class SourceMasks:
    """Masks that the source holds with its images: the columns `mask` and `masks` of Parquet files."""

    def find(
        self, sample: Sample, shape: tuple[int, int], keep: MaskFilter
    ) -> Iterator[Bool[np.ndarray, "h w"] | LeftOut]:
        for number, content in enumerate(sample.masks):
            yield from _objects(f"{sample.source_id}, mask {number}", functools.partial(bytes, content), shape)

    def unlisted(self) -> int:
        return 0


@dataclass(frozen=True)
class CocoFile:
    """One COCO file for all photos, which it names by their source ids or the last parts of these.

    Every process reads it once and keeps it.
    """

    path: Path

    def find(
        self, sample: Sample, shape: tuple[int, int], keep: MaskFilter
    ) -> Iterator[Bool[np.ndarray, "h w"] | LeftOut]:
        images, _ = _index(self.path)
        stem = _stem(sample.source_id)
        if (name := stem if stem in images else stem.rsplit("/")[-1]) not in images:
            return
        image, annotations = images[name]
        height, width = image.get("height", shape[0]), image.get("width", shape[1])
        if (height, width) != shape:
            listed = f"{image['file_name']} is listed with {width} x {height} pixels"
            detail = f"{self.path}: {listed}, but the photo has {shape[1]} x {shape[0]}"
            yield from (LeftOut(OTHER_SIZE, detail) for _ in annotations)
        else:
            yield from _decode(self.path, annotations, shape, keep)

    def unlisted(self) -> int:
        return _index(self.path)[1]


@functools.cache
def _index(path: Path) -> tuple[dict[str, tuple[dict[str, Any], list[tuple[int, Any]]]], int]:
    """Return each image's entry and numbered annotations in a COCO file, by its name without suffix, and the number of
    annotations without a listed image."""
    content = _read_json(path)
    try:
        images = {image["id"]: (image, []) for image in content["images"]}  # type: ignore[var-annotated]
        unlisted = 0
        for number, annotation in enumerate(content["annotations"]):
            name = annotation.get("image_id") if isinstance(annotation, dict) else None
            if isinstance(name, int | str) and name in images:
                images[name][1].append((number, annotation))
            else:
                unlisted += 1
        index = {_stem(image["file_name"]): (image, annotations) for image, annotations in images.values()}
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path}: not COCO's `images` and `annotations`: {type(error).__name__} {error}") from error
    if len(index) < len(content["images"]):
        raise ValueError(f"{path}: some of its {len(content['images'])} images have the same id or name")
    return index, unlisted


def _stem(source_id: str) -> str:
    """Return a source id or file name without the suffix of an image; the key of a tar file's sample has none."""
    path = PurePosixPath(source_id)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else source_id


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_file(path, LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error


def _objects(
    name: str, read: Callable[[], bytes], shape: tuple[int, int]
) -> Iterator[Bool[np.ndarray, "h w"] | LeftOut]:
    """Yield the objects of a label map in a PNG, or one `LeftOut` if it cannot be used."""
    try:
        values = _read_png(name, read, shape)
        if values.ndim != 2:
            raise _Misfit(NOT_READABLE, f"{name}: a label map has one channel, this has {values.shape[2]}")
        if _is_blurred(values):
            raise _Misfit(BLURRED, f"{name}: {BLURRED}, as in an anti-aliased image")
        yield from (np.equal(values, value) for value in np.unique(values) if value)
    except _Misfit as error:
        yield LeftOut(error.reason, str(error))


def _read_png(name: str, read: Callable[[], bytes], shape: tuple[int, int]) -> Shaped[np.ndarray, "h w *channels"]:
    try:
        with Image.open(io.BytesIO(read())) as file:
            values = np.asarray(file)  # a palette image's indices
    except Exception as error:  # decoders raise many types on damaged files
        raise _Misfit(NOT_READABLE, f"{name}: {error}") from error
    if values.shape[:2] != shape:
        want, have = f"{shape[1]} x {shape[0]}", f"{file.width} x {file.height}"
        raise _Misfit(OTHER_SIZE, f"{name}: expected the photo's {want} pixels, got {have}")
    return values


def _is_blurred(values: Shaped[np.ndarray, "h w"]) -> bool:
    """Return whether a label map is an anti-aliased image of masks; each value at its edges would become a ring object.

    Such values are only on slopes, next to smaller and larger ones; most pixels of an object are next to equal ones.
    """
    between = (values != values.min()) & (values != values.max())
    slope = (ndimage.minimum_filter(values, 3) < values) & (values < ndimage.maximum_filter(values, 3))
    found, numbers, areas = np.unique(values[between], return_inverse=True, return_counts=True)
    on_slopes = np.bincount(numbers, weights=slope[between]) > 0.9 * areas
    return len(found) > 2 and bool(on_slopes.mean() > 0.5)


def _decode(
    path: Path, annotations: Iterable[tuple[int, Any]], shape: tuple[int, int], keep: MaskFilter
) -> Iterator[Bool[np.ndarray, "h w"] | LeftOut]:
    """Yield the masks of COCO annotations or bare run lengths that `keep` trusts."""
    for number, annotation in annotations:
        where = f"{path}: annotation {number}"
        try:
            if not keep.trusts(annotation):
                yield LeftOut(NOT_TRUSTED, f"{where}: {NOT_TRUSTED}")
                continue
            bare = "counts" in annotation  # the run lengths themselves
            segmentation = annotation if bare else annotation.get("segmentation")
            if not segmentation:
                raise _Misfit(NO_SEGMENTATION, NO_SEGMENTATION)
            yield _decode_segmentation(segmentation, shape)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            detail = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
            yield LeftOut(error.reason if isinstance(error, _Misfit) else NOT_READABLE, f"{where}: {detail}")


def _decode_segmentation(segmentation: Any, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Decode COCO's `segmentation`: polygons, or run lengths column by column that begin with a run of zeros."""
    height, width = shape
    if isinstance(segmentation, list):
        segmentation = _fill(segmentation, shape)
    if list(segmentation["size"]) != [height, width]:
        raise _Misfit(OTHER_SIZE, f"expected the size [{height}, {width}] of the photo, got {segmentation['size']}")
    counts = segmentation["counts"]
    if isinstance(counts, str):
        counts = _uncompress(counts)
    elif not all(isinstance(count, int) for count in counts):
        raise ValueError("expected integers as run lengths")
    runs = np.array(counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"expected runs of {height} x {width} = {height * width} pixels together, got {runs.sum()}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _uncompress(counts: str) -> Int[np.ndarray, " runs"]:
    """Decode COCO's string of run lengths. (From a truncated string, pycocotools makes a mask of random memory.)

    A character holds 5 bits of a number, the lowest first, and a sixth that says whether more follow; the upper bit of
    the last one is the sign. From the fourth on, a number is the difference to the number two before it.
    """
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    last = codes & 32 == 0
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not last[-1]:
        raise ValueError(f"not COCO's string of run lengths, or cut short: {counts[:20]!r}...")
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    lengths = np.diff(starts, append=len(codes))
    if lengths.max() > 12:
        raise ValueError("a run length of more than 60 bits")
    digits = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 31) << 5 * digits, starts)
    runs -= np.where(codes[last] & 16, 1 << 5 * lengths, 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def _fill(polygons: Sequence[Sequence[float]], shape: tuple[int, int]) -> dict[str, Any]:
    """Return run lengths of the union of polygons x0, y0, x1, y1, ... in pixels, filled by COCO's own tools."""
    from pycocotools import mask as coco

    height, width = shape
    clipped = []
    for polygon in polygons:
        points = np.array(polygon, np.float64)
        if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError(f"expected polygons as lists of numbers x, y, got {polygon}")
        if len(points) < 6:
            raise _Misfit(FEW_POINTS, f"expected polygons of at least three points x, y, got {polygon}")
        clipped.append(points.reshape(-1, 2).clip(0, (width, height)).ravel().tolist())
    return {"size": [height, width], "counts": coco.merge(coco.frPyObjects(clipped, height, width))["counts"].decode()}
