"""Photographs as commands take them: files, divided into a model's elements.

It imports `partition` only when a photograph is to be divided.
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

from elements_jax import TINY
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
    """How a photograph is divided, where the input is not an encoded file already."""

    segmenter: Segmenter | None = None
    """As in `elements partition`; by default sam with a checkpoint, and slic, which needs none, without."""
    checkpoint: Annotated[PathOrURL | None, tyro.conf.arg(metavar="FILE")] = None
    """Checkpoint of SAM or MobileSAM: the official file, or transformers' file or folder; or mobile-sam, vit_b, vit_l
    or vit_h, which are downloaded from the Hugging Face hub."""

    @property
    def chosen(self) -> Segmenter:
        """The segmenter."""
        return self.segmenter or ("sam" if self.checkpoint else "slic")

    def of_encoded(self, settings: Mapping[str, Any]) -> "SegmenterOptions":
        """This choice, or, where there is none, that of an encoded file, if it needs no checkpoint."""
        divided = settings.get("segmenter")
        if self.segmenter is None and self.checkpoint is None and divided in ("slic", "grid"):
            return replace(self, segmenter=divided)
        return self


DEFAULT_SOURCE = SegmenterOptions()
PIECES = 22
"""The square root of the number of pieces that a photograph is divided into for people to select from."""
TINY_NOTICE = "Demo model (64 px): what it paints itself is blurred."


def notices(model: str | None, source: SegmenterOptions) -> list[str]:
    """What a person should know who left the choice to us."""
    notices = [] if model else [TINY_NOTICE]
    if source.segmenter is None and source.checkpoint is None:
        notices.append("Photographs are divided by SLIC; with --checkpoint SAM does it.")
    return notices


class PhotoSegmenter:
    """Makes photos of image files, divided into a model's elements as `source` says."""

    def __init__(self, elements: "ElementsConfig", source: SegmenterOptions):
        self._elements = elements
        self._source = source

    @cached_property
    def segmenter(self) -> Any:
        """SAM is read when it is first needed. Raises ValueError where it has no checkpoint, or a wrong one."""
        from partition.job.worker import make_segmenter

        return make_segmenter(self._source.chosen, self._source.checkpoint, self.config)[1]

    @property
    def config(self) -> "PartitionConfig":
        """How pictures of the model's size are divided."""
        from partition.config import PartitionConfig

        return PartitionConfig(size=self._elements.image_size, grid=self._elements.grid)

    def label(self, image: UInt8[np.ndarray, "S S 3"]) -> UInt16[np.ndarray, "S S"]:
        """Each pixel's element, or DROPPED, of a picture of the model's size."""
        from partition.components import partition_image

        return partition_image(image, self.segmenter, self.config).label_map

    def pieces(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt16[np.ndarray, "H W"]:
        """Each pixel's superpixel, of a picture of any size: pieces for people to select from."""
        from partition.config import PartitionConfig
        from partition.segmenters.superpixels import Slic

        return Slic(PartitionConfig(grid=PIECES, compactness=10))(image).astype(np.uint16)

    def __call__(self, encoded: bytes, fit: Fit) -> "Photo":
        """Raises ValueError for bytes that are not a readable image."""
        from partition.photos import divide_photo

        return divide_photo(encoded, self.segmenter, self.config, fit)


class ObjectFinder:
    """Finds the object at a point or in a box of a photograph: with SAM, or in a box without it.

    SAM looks twice: at all of the photograph, and then at a window around what it found, for a finer edge.
    """

    def __init__(self, divider: PhotoSegmenter, source: SegmenterOptions):
        self._divider = divider
        self._source = source

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], at: ObjectAt) -> tuple[Bool[np.ndarray, "H W"], float]:
        """The object's mask, and how far its edge may be from the true one, in pixels.

        Raises EditError for a point without SAM, and ValueError if SAM has a wrong checkpoint.
        """
        if self._source.checkpoint is None and at.box is not None:
            from partition.segmenters.object_in_box import object_in_box

            return object_in_box(image, at.box)
        if self._source.checkpoint is None:
            raise EditError("finding an object from a point needs SAM: give --checkpoint, or a box or a mask instead")
        from partition.segmenters.find_object import find_object

        return find_object(self._select, image, at.point, at.box)

    def load(self) -> None:
        """Read SAM now. Raises ValueError where it has no checkpoint, or a wrong one."""
        _ = self._select

    @cached_property
    def _select(self) -> Any:
        from partition.job.worker import make_segmenter
        from partition.segmenters.object_selector import ObjectSelector

        if self._source.chosen in ("sam", "mobile-sam"):
            return ObjectSelector(self._divider.segmenter)
        return ObjectSelector(make_segmenter("sam", self._source.checkpoint, self._divider.config)[1])


def open_photo(editing: "EditSession", path: Path, fit: Fit) -> "Photo":
    """The photograph of a file, or what `elements encode` made of it. Raises ValueError naming the file."""
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

    return ElementsPipeline.from_pretrained(model or TINY)


def open_editing(
    model: str | None, source: SegmenterOptions, settings: Mapping[str, Any] | None = None
) -> "EditSession":
    """The model, with photographs divided as `source` says. `settings` are those of an encoded file, if one is edited:
    its results say how it was divided."""
    from elements_jax.pipeline.session import EditSession

    for notice in notices(model, source):
        print(notice, file=sys.stderr)
    pipeline = open_pipeline(model)
    divider = PhotoSegmenter(pipeline.config.elements, source)
    return EditSession(pipeline, divider, (settings or {}).get("segmenter", source.chosen))
