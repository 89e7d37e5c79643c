"""Input photographs of commands: files, segmented into a model's elements.

`partition` is imported only when a photograph is segmented.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from jaxtyping import Bool, UInt8, UInt16

from elements_jax import PHOTO
from elements_jax.arguments import PathOrURL
from elements_jax.data.atomic import read_file
from elements_jax.data.encoded import is_encoded, read_encoded
from elements_jax.editing.script import EditError, Fit, ObjectAt

if TYPE_CHECKING:
    from elements_jax.config import ElementsConfig
    from elements_jax.data.photo import Photo
    from elements_jax.pipeline.pipeline import ElementsPipeline
    from elements_jax.pipeline.session import EditSession
    from partition.config import PartitionConfig

Segmenter = Literal["sam", "mobile-sam", "slic", "grid"]


@dataclass(frozen=True)
class SegmenterOptions:
    """How to segment a photograph, unless the input is an encoded file."""

    segmenter: Segmenter | None = None
    """Segmenter, as in `elements partition`; by default sam with a checkpoint and slic without one."""
    checkpoint: Annotated[PathOrURL | None, tyro.conf.arg(metavar="FILE")] = None
    """Checkpoint of SAM or MobileSAM: the official file, transformers' file or folder, or mobile-sam, vit_b, vit_l or
    vit_h to download it from the Hugging Face hub."""

    @property
    def chosen(self) -> Segmenter:
        """The chosen segmenter, or the default."""
        return self.segmenter or ("sam" if self.checkpoint else "slic")

    def found(self) -> "SegmenterOptions":
        """Return this choice with the checkpoint's local file. Raises ValueError if there is none."""
        if self.checkpoint is None:
            return self
        from partition.segmenters.checkpoints import find_checkpoint

        return replace(self, checkpoint=find_checkpoint(self.checkpoint))

    def of_encoded(self, settings: Mapping[str, Any]) -> "SegmenterOptions":
        """Return this choice or, if there is none, that of an encoded file, unless it needs a checkpoint."""
        divided = settings.get("segmenter")
        if self.segmenter is None and self.checkpoint is None and divided in ("slic", "grid"):
            return replace(self, segmenter=divided)
        return self


DEFAULT_SOURCE = SegmenterOptions()
PIECES = 22
"""The square root of the number of pieces offered for selection in the editor."""
PHOTO_NOTICE = "The bundled model paints at 256 px: what it paints itself is blurred."


def notices(uses_photo: bool, source: SegmenterOptions) -> list[str]:
    """Return notices about the defaults that the user did not choose."""
    notices = [PHOTO_NOTICE] if uses_photo else []
    if source.segmenter is None and source.checkpoint is None:
        notices.append("Photographs are segmented by SLIC; use SAM with --checkpoint.")
    return notices


class PhotoSegmenter:
    """Reads image files as photos, segmented into a model's elements as `source` says."""

    def __init__(self, elements: "ElementsConfig", source: SegmenterOptions):
        self._elements = elements
        self._source = source

    @cached_property
    def segmenter(self) -> Any:
        """The segmenter; SAM is loaded on first use. Raises ValueError if its checkpoint is missing or wrong."""
        from partition.job.worker import make_segmenter

        return make_segmenter(self._source.chosen, self._source.checkpoint, self.config)[1]

    @property
    def config(self) -> "PartitionConfig":
        """The partition settings for images of the model's size."""
        from partition.config import PartitionConfig

        return PartitionConfig(size=self._elements.image_size, grid=self._elements.grid)

    def label(self, image: UInt8[np.ndarray, "S S 3"]) -> UInt16[np.ndarray, "S S"]:
        """Return each pixel's element, or DROPPED, for an image of the model's size."""
        from partition.components import partition_image

        return partition_image(image, self.segmenter, self.config).label_map

    def pieces(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt16[np.ndarray, "H W"]:
        """Return each pixel's superpixel, for an image of any size: the pieces that people can select."""
        from partition.config import PartitionConfig
        from partition.segmenters.superpixels import Slic

        return Slic(PartitionConfig(grid=PIECES, compactness=10))(image).astype(np.uint16)

    def __call__(self, encoded: bytes, fit: Fit) -> "Photo":
        """Decode and segment a photo. Raises ValueError if the bytes are not a readable image."""
        from partition.photos import divide_photo

        return divide_photo(encoded, self.segmenter, self.config, fit)


class ObjectFinder:
    """Finds the object at a point or in a box of a photograph. Points need SAM; boxes also work without it.

    SAM runs twice: on the complete photograph, and then on a window around the object, for a finer edge.
    """

    def __init__(self, divider: PhotoSegmenter, source: SegmenterOptions):
        self._divider = divider
        self._source = source

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], at: ObjectAt) -> tuple[Bool[np.ndarray, "H W"], float]:
        """Return the object's mask, and the maximum error of its edge in pixels.

        Raises EditError for a point without SAM, and ValueError if SAM's checkpoint is wrong.
        """
        if self._source.checkpoint is None and at.box is not None:
            from partition.segmenters.object_in_box import object_in_box

            return object_in_box(image, at.box)
        if self._source.checkpoint is None:
            raise EditError("finding an object from a point needs SAM: give --checkpoint, or a box or a mask instead")
        from partition.segmenters.find_object import find_object

        return find_object(self._select, image, at.point, at.box)

    def load(self) -> None:
        """Load SAM now. Raises ValueError if its checkpoint is missing or wrong."""
        _ = self._select

    @cached_property
    def _select(self) -> Any:
        from partition.job.worker import make_segmenter
        from partition.segmenters.object_selector import ObjectSelector

        if self._source.chosen in ("sam", "mobile-sam"):
            return ObjectSelector(self._divider.segmenter)
        return ObjectSelector(make_segmenter("sam", self._source.checkpoint, self._divider.config)[1])


def open_photo(editing: "EditSession", path: Path, fit: Fit) -> "Photo":
    """Read a photograph, or a file written by `elements encode`. Raises ValueError that names the file."""
    if not is_encoded(path):
        content = read_file(path)
        try:
            return editing.open(content, fit)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    from elements_jax.data.photo import Photo

    encoded, elements = read_encoded(path), editing.pipeline.config.elements
    have, want = (len(encoded.image), encoded.num_elements), (elements.image_size, elements.num_elements)
    if have != want:
        raise ValueError(
            f"{path}: encoded for a model of {have[0]} px and {have[1]} elements, and this one has {want[0]} px and "
            f"{want[1]}; encode again with this model"
        )
    return Photo(encoded.image, encoded.label_map, encoded.box)


def open_pipeline(model: str | None) -> "ElementsPipeline":
    from elements_jax.pipeline.pipeline import ElementsPipeline

    return ElementsPipeline.from_pretrained(model or PHOTO)


def open_editing(
    model: str | None, source: SegmenterOptions, settings: Mapping[str, Any] | None = None
) -> "EditSession":
    """Open a model, with photographs segmented as `source` says. `settings` are those of the encoded file being edited,
    if any: results record how it was segmented.

    Raises ValueError for a missing checkpoint, before the model is read.
    """
    source = source.found()  # before JAX is imported, which takes seconds
    from elements_jax.pipeline.session import EditSession

    for notice in notices(not model, source):
        print(notice, file=sys.stderr)
    pipeline = open_pipeline(model)
    divider = PhotoSegmenter(pipeline.config.elements, source)
    return EditSession(pipeline, divider, (settings or {}).get("segmenter", source.chosen))
