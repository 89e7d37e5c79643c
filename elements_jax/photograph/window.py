"""Windows: squares of a photograph for a model of a fixed size, large enough for an edit and its context."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image

from elements_jax.fill.smooth import shrink_mask

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels; right and bottom are exclusive."""
CONTEXT = 2.0
"""A window's side in units of the longer side of its edits."""


@dataclass(frozen=True)
class Window:
    """A square of a photograph of a height and width; beyond the border the photograph is mirrored."""

    left: int
    top: int
    side: int
    height: int
    width: int

    @property
    def box(self) -> Box:
        """The part of the photograph inside the window."""
        right, bottom = min(self.left + self.side, self.width), min(self.top + self.side, self.height)
        return max(0, self.left), max(0, self.top), right, bottom

    @property
    def here(self) -> tuple[slice, slice]:
        """The slices of that part of a photograph's array."""
        left, top, right, bottom = self.box
        return slice(top, bottom), slice(left, right)

    def cut(self, pixels: Shaped[np.ndarray, "H W *C"]) -> Shaped[np.ndarray, "S S *C"]:
        """Cut out the complete square, mirrored beyond the photograph."""
        rows, columns = (
            _mirrored(np.arange(start, start + self.side), length)
            for start, length in ((self.top, self.height), (self.left, self.width))
        )
        return pixels[rows[:, None], columns]

    def resample(self, pixels: Shaped[np.ndarray, "H W 3"], size: int) -> Shaped[np.ndarray, "{size} {size} 3"]:
        """Resample the square to a model's size, antialiased."""
        return np.asarray(Image.fromarray(self.cut(pixels)).resize((size, size), Image.Resampling.LANCZOS))

    def resample_mask(
        self, mask: Bool[np.ndarray, "H W"], size: int, least: float = 0.5
    ) -> Bool[np.ndarray, "{size} {size}"]:
        """Resample a mask to a model's size: a pixel is set if more than a share of `least` is under the mask."""
        return shrink_mask(self.cut(mask), (size, size), least)

    def enlarge(self, picture: Shaped[np.ndarray, "S S 3"]) -> Shaped[np.ndarray, "h w 3"]:
        """Enlarge a model's image of the square to the photograph's resolution, cropped to the photograph."""
        left, top, right, bottom = self.box
        factor = picture.shape[0] / self.side
        corners = ((left - self.left), (top - self.top), (right - self.left), (bottom - self.top))
        box = tuple(corner * factor for corner in corners)
        return np.asarray(Image.fromarray(picture).resize((right - left, bottom - top), Image.Resampling.BICUBIC, box))

    def crop(self, picture: Shaped[np.ndarray, "S S 3"]) -> Shaped[np.ndarray, "h w 3"]:
        """Crop a model's image of the square to the photograph, at the model's resolution."""
        left, top, right, bottom = self.box
        factor = picture.shape[0] / self.side
        x0, x1 = (round((x - self.left) * factor) for x in (left, right))
        y0, y1 = (round((y - self.top) * factor) for y in (top, bottom))
        return picture[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]


def windows(edited: Sequence[Box], size: tuple[int, int], smallest: int) -> list[tuple[Window, list[int]]]:
    """Choose windows of a photograph of (height, width) around edited boxes, and the indices of each window's boxes.

    Args:
        smallest: the model's size: no window is smaller, if the photograph is that large.

    Boxes whose windows overlap share one, so that each pixel is edited in one window.
    """
    groups = [(_around(box, size, smallest), box, [n]) for n, box in enumerate(edited)]
    merged = True
    while merged:
        merged = False
        for i in range(len(groups)):
            for j in range(i + 1, len(groups)):
                if _overlap(groups[i][0].box, groups[j][0].box):
                    both = _union(groups[i][1], groups[j][1])
                    numbers = sorted(groups[i][2] + groups[j][2])
                    groups[i] = _around(both, size, smallest), both, numbers
                    del groups[j]
                    merged = True
                    break
            if merged:
                break
    return [(window, numbers) for window, _, numbers in groups]


def box_of(mask: Bool[np.ndarray, "H W"]) -> Box | None:
    """Return the box around a mask; None if it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def grown(box: Box, by: int, size: tuple[int, int]) -> Box:
    """Add a margin to a box, within a photograph of (height, width)."""
    left, top, right, bottom = box
    return max(0, left - by), max(0, top - by), min(size[1], right + by), min(size[0], bottom + by)


def _around(box: Box, size: tuple[int, int], smallest: int) -> Window:
    height, width = size
    left, top, right, bottom = box
    side = max(round(CONTEXT * max(right - left, bottom - top)), smallest)
    side = min(side, max(height, width))
    return Window(_place(left, right, side, width), _place(top, bottom, side, height), side, height, width)


def _place(start: int, stop: int, side: int, length: int) -> int:
    """Return the start of a window centred on start to stop, shifted to be inside; centred if it is too large."""
    if side >= length:
        return (length - side) // 2
    return min(max((start + stop - side) // 2, 0), length - side)


def _overlap(a: Box, b: Box) -> bool:
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Reflect indices into [0, length), repeating the border pixel."""
    index = index % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)
