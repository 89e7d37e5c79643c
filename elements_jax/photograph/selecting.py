"""Selections of edits on a photograph: masks at its full size, from elements, a mask file, or an object's location."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from elements_jax.data.photo import Photo
from elements_jax.data.record import DROPPED
from elements_jax.editing.script import Compose, Delete, Duplicate, EditError, Fit, Move, ObjectAt, Resize
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.matte import resized

Found = tuple[Bool[np.ndarray, "H W"], float]
"""An object's mask, and the maximum error of its edge in pixels."""
FindObject = Callable[[UInt8[np.ndarray, "H W 3"], ObjectAt], Found]
"""Finds the object at a point or in a box of an image. Raises ValueError if it cannot."""
Divide = Callable[[bytes, Fit], Photo]
Selecting = Move | Resize | Delete | Duplicate | Compose
MASK_SLACK = 2.0
"""Maximum edge error in pixels of masks drawn by people or written by programs at full size."""


@dataclass(frozen=True)
class Frame:
    """The unit of an edit's lengths: the complete photograph, or the square whose elements are numbered."""

    left: float
    top: float
    width: float
    height: float

    def length(self, vector: tuple[float, float]) -> tuple[float, float]:
        """Convert a shift to pixels."""
        return vector[0] * self.width, vector[1] * self.height

    def point(self, vector: tuple[float, float]) -> tuple[float, float]:
        """Convert a point to pixels."""
        return self.left + vector[0] * self.width, self.top + vector[1] * self.height

    def inverse(self, point: tuple[float, float]) -> tuple[float, float]:
        """Convert a pixel to a point of the frame."""
        return (point[0] - self.left) / self.width, (point[1] - self.top) / self.height


@dataclass(frozen=True, eq=False)
class Selection:
    """The pixels of a photograph that an edit selects."""

    mask: Bool[np.ndarray, "H W"]
    slack: float
    frame: Frame


@dataclass(frozen=True)
class Selector:
    """Makes selections of photographs."""

    divide: Divide
    """Segments a photograph into the elements that a script numbers."""
    find_object: FindObject | None
    open_named: Callable[[str], Photograph]
    """Opens a mask file that a script names."""

    def __call__(self, photograph: Photograph, rgb: UInt8[np.ndarray, "H W 3"], edit: Selecting, fit: Fit) -> Selection:
        """Select. Raises EditError with the reason, without naming the edit."""
        height, width = photograph.size
        if edit.object is None:
            return self._elements(photograph, edit.elements, fit)
        if edit.object.mask is not None:
            mask, slack = self._mask_file(edit.object.mask, photograph)
        elif self.find_object is None:
            raise EditError("finding objects from points and boxes needs an ObjectFinder, as the command line has")
        else:
            mask, slack = self.find_object(rgb, edit.object)
        if not mask.any():
            raise EditError("no object was found there")
        return Selection(mask, slack, Frame(0.0, 0.0, float(width), float(height)))

    def _elements(self, photograph: Photograph, elements: tuple[int, ...], fit: Fit) -> Selection:
        photo = self.divide(photograph.encoded, fit)
        labels = photo.label_map
        there = np.unique(labels[labels != DROPPED])
        if missing := sorted(set(elements) - set(there.tolist())):
            raise EditError(f"element {missing[0]} does not exist; the photograph has elements 0 to {there.max()}")
        height, width = photograph.size
        side = min(height, width) if fit == "crop" else max(height, width)
        frame = Frame((width - side) / 2, (height - side) / 2, float(side), float(side))
        left, top, right, bottom = photo.box
        chosen = np.isin(labels, list(elements))[top:bottom, left:right]
        shape = (side, side) if fit == "crop" else (height, width)
        share = resized(chosen.astype(np.float32)[..., None], shape)[..., 0]
        enlarged = share >= min(0.5, share.max())  # a photograph may be smaller than the model's elements
        mask = np.zeros((height, width), bool)
        y, x = (height - shape[0]) // 2, (width - shape[1]) // 2
        mask[y : y + shape[0], x : x + shape[1]] = enlarged
        return Selection(mask, max(1.0, side / labels.shape[0]), frame)

    def _mask_file(self, name: str, photograph: Photograph) -> Found:
        pixels = self.open_named(name).pixels
        values = pixels[..., -1] if pixels.shape[2] in (2, 4) else pixels[..., 0]
        mask = values > np.iinfo(values.dtype).max // 2
        height, width = photograph.size
        if mask.shape == (height, width):
            return mask, MASK_SLACK
        if abs(mask.shape[0] * width / (mask.shape[1] * height) - 1) > 0.02:
            raise EditError(
                f"the mask {name} has {mask.shape[1]} x {mask.shape[0]} px, which does not match the photograph's "
                f"{width} x {height} px"
            )
        picture = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture) > 127, max(MASK_SLACK, height / mask.shape[0])
