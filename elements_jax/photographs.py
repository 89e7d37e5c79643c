"""Photographs as commands take them: files, divided into a model's elements.

Beside `cli` the one module here that reaches for `partition`, and only when a photograph is to be divided.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from elements_jax.schema import DROPPED
from elements_jax.script import Fit

if TYPE_CHECKING:
    from elements_jax.config import ElementsConfig
    from elements_jax.editing import Editing, Photo
    from partition.config import PartitionConfig

Segmenter = Literal["sam", "mobile-sam", "slic", "grid"]


@dataclass(frozen=True)
class Source:
    """How a photograph is divided, where the input is not an encoded file already."""

    segmenter: Segmenter | None = None
    """As in `elements partition`; by default sam with a checkpoint, and slic, which needs none, without."""
    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Official checkpoint of SAM or MobileSAM."""

    @property
    def chosen(self) -> Segmenter:
        """The segmenter."""
        return self.segmenter or ("sam" if self.checkpoint else "slic")


DEFAULT_SOURCE = Source()


class Divider:
    """Makes photos of image files, divided into a model's elements as `source` says."""

    def __init__(self, elements: "ElementsConfig", source: Source):
        self._elements = elements
        self._source = source

    @cached_property
    def segmenter(self) -> Any:
        """SAM is read when it is first needed. Raises ValueError where it has no checkpoint, or a wrong one."""
        from partition.worker import make_segmenter

        return make_segmenter(self._source.chosen, self._source.checkpoint, self._config)[1]

    @property
    def _config(self) -> "PartitionConfig":
        from partition.config import PartitionConfig

        return PartitionConfig(size=self._elements.image_size, grid=self._elements.grid)

    def __call__(self, encoded: bytes, fit: Fit) -> "Photo":
        """Raises ValueError for what is no image, or damaged."""
        from elements_jax.editing import Photo
        from partition.elements import partition_image
        from partition.photos import read_photo
        from partition.samples import Sample

        photo = read_photo(Sample("", encoded), self._config.size, fit=fit)
        label_map = partition_image(photo.image, self.segmenter, self._config).label_map
        left, top, right, bottom = photo.box
        inside = np.zeros(label_map.shape, bool)
        inside[top:bottom, left:right] = True
        return Photo(photo.image, np.where(inside, label_map, DROPPED), photo.box)


def open_photo(editing: "Editing", path: Path, fit: Fit) -> "Photo":
    """The photograph of a file, or what `elements encode` made of it. Raises ValueError naming the file."""
    if path.suffix != ".npz":
        try:
            return editing.open(path.read_bytes(), fit)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    from elements_jax.editing import Photo

    try:
        with np.load(path, allow_pickle=False) as archive:
            return Photo(archive["image"], archive["label_map"], tuple(archive["box"].tolist()))
    except (KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a file that `elements encode` wrote: {error}") from error
