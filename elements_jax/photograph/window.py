"""Windows: squares of a photograph that a model of a fixed size looks at, large enough for an edit and its context."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels; right and bottom are excluded."""
CONTEXT = 2.0
"""A window's side in units of the longer side of what is edited in it."""


@dataclass(frozen=True)
class Window:
    """A square of a photograph of a height and width; where the photograph is narrower, it is mirrored."""

    left: int
    top: int
    side: int
    height: int
    width: int

    @property
    def box(self) -> Box:
        """The part of the photograph in it."""
        right, bottom = min(self.left + self.side, self.width), min(self.top + self.side, self.height)
        return max(0, self.left), max(0, self.top), right, bottom

    @property
    def here(self) -> tuple[slice, slice]:
        """The index of its part of a photograph's array."""
        left, top, right, bottom = self.box
        return slice(top, bottom), slice(left, right)

    def cut(self, pixels: Shaped[np.ndarray, "H W *C"]) -> Shaped[np.ndarray, "S S *C"]:
        """The whole square, mirrored where it reaches beyond the photograph."""
        rows, columns = (
            _mirrored(np.arange(start, start + self.side), length)
            for start, length in ((self.top, self.height), (self.left, self.width))
        )
        return pixels[rows[:, None], columns]

    def resample(self, pixels: Shaped[np.ndarray, "H W 3"], size: int) -> Shaped[np.ndarray, "{size} {size} 3"]:
        """The square at a model's size, antialiased."""
        return np.asarray(Image.fromarray(self.cut(pixels)).resize((size, size), Image.Resampling.LANCZOS))

    def resample_mask(
        self, mask: Bool[np.ndarray, "H W"], size: int, least: float = 0.5
    ) -> Bool[np.ndarray, "{size} {size}"]:
        """A mask of the photograph at a model's size: the pixels of which more than a share of `least` is under it."""
        return shrink_mask(self.cut(mask), (size, size), least)

    def enlarge(self, picture: Shaped[np.ndarray, "S S 3"]) -> Shaped[np.ndarray, "h w 3"]:
        """A model's picture of the square at the photograph's resolution: the part that is in the photograph."""
        left, top, right, bottom = self.box
        factor = picture.shape[0] / self.side
        corners = ((left - self.left), (top - self.top), (right - self.left), (bottom - self.top))
        box = tuple(corner * factor for corner in corners)
        return np.asarray(Image.fromarray(picture).resize((right - left, bottom - top), Image.Resampling.BICUBIC, box))

    def crop(self, picture: Shaped[np.ndarray, "S S 3"]) -> Shaped[np.ndarray, "h w 3"]:
        """Of a model's picture of the square, the part that is in the photograph, at the model's resolution."""
        left, top, right, bottom = self.box
        factor = picture.shape[0] / self.side
        x0, x1 = (round((x - self.left) * factor) for x in (left, right))
        y0, y1 = (round((y - self.top) * factor) for y in (top, bottom))
        return picture[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]


def shrink_mask(mask: Bool[np.ndarray, "H W"], size: tuple[int, int], least: float = 0.0) -> Bool[np.ndarray, "h w"]:
    """A mask in fewer pixels, size = (width, height): those of which more than a share of `least` is under it."""
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(share) > 255 * least


def windows(edited: Sequence[Box], size: tuple[int, int], smallest: int) -> list[tuple[Window, list[int]]]:
    """Windows of a photograph of (height, width) around boxes that are edited, and the numbers of each window's boxes.

    Args:
        smallest: the model's size: no window is smaller, where the photograph is that large.

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
    """The box around a mask; None if it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def grown(box: Box, by: int, size: tuple[int, int]) -> Box:
    """A box with a margin, within a photograph of (height, width)."""
    left, top, right, bottom = box
    return max(0, left - by), max(0, top - by), min(size[1], right + by), min(size[0], bottom + by)


def _around(box: Box, size: tuple[int, int], smallest: int) -> Window:
    height, width = size
    left, top, right, bottom = box
    side = max(round(CONTEXT * max(right - left, bottom - top)), smallest)
    side = min(side, max(height, width))
    return Window(_place(left, right, side, width), _place(top, bottom, side, height), side, height, width)


def _place(start: int, stop: int, side: int, length: int) -> int:
    """Where a window begins that has start to stop in its middle, shifted to be inside; centred if it is too large."""
    if side >= length:
        return (length - side) // 2
    return min(max((start + stop - side) // 2, 0), length - side)


def _overlap(a: Box, b: Box) -> bool:
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Indices reflected into [0, length), the border pixel itself repeated."""
    index = index % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)
