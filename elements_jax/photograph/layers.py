"""Layers: objects cut out of a photograph with their own pixels, placed elsewhere and laid over it.

Uses only NumPy and Pillow, at the photograph's resolution, in crops around the edits.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from PIL import Image

from elements_jax.photograph.matte import alpha_matte, foreground
from elements_jax.photograph.window import Box, box_of, grown

Rendered = tuple[Float32[np.ndarray, "_ _ C"], Float32[np.ndarray, "_ _"], Box]
"""Colours from 0 to 1, alpha, and their box in a photograph."""


@dataclass(frozen=True)
class Placement:
    """x' = scale * x + offset, in pixels, along (x, y): maps a source pixel to its target."""

    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def then(self, after: "Placement") -> "Placement":
        """Return this placement followed by another."""
        scale = tuple(a * b for a, b in zip(self.scale, after.scale, strict=True))
        moved = tuple(s * o + b for s, o, b in zip(after.scale, self.offset, after.offset, strict=True))
        return Placement((scale[0], scale[1]), (moved[0], moved[1]))

    def of(self, box: Box) -> tuple[float, float, float, float]:
        """Map a box."""
        (sx, sy), (ox, oy) = self.scale, self.offset
        return sx * box[0] + ox, sy * box[1] + oy, sx * box[2] + ox, sy * box[3] + oy

    @property
    def is_identity(self) -> bool:
        """Whether everything stays in place, up to rounding."""
        return all(abs(s - 1) < 1e-9 for s in self.scale) and all(abs(o) < 1e-6 for o in self.offset)

    @property
    def is_shift(self) -> bool:
        """Whether it shifts by integer pixels without scaling."""
        return self.scale == (1.0, 1.0) and all(o == round(o) for o in self.offset)


def place(scale: tuple[float, float], anchor: tuple[float, float], shift: tuple[float, float]) -> Placement:
    """Scale about an anchor, then shift. A shift without a scale is rounded to integer pixels, to keep them exact."""
    if scale == (1.0, 1.0):
        return Placement(offset=(float(round(shift[0])), float(round(shift[1]))))
    offset = tuple(a - s * a + d for s, a, d in zip(scale, anchor, shift, strict=True))
    return Placement(scale, (offset[0], offset[1]))


@dataclass(frozen=True, eq=False)
class Layer:
    """An object of a photograph and its placement."""

    pixels: Shaped[np.ndarray, "H W C"]
    """Its source photograph."""
    mask: Bool[np.ndarray, "H W"]
    slack: float
    """Maximum distance in pixels between the mask's edge and the object's."""
    placement: Placement = Placement()
    is_copy: bool = False
    """Later selections of the photograph do not include copies."""

    @cached_property
    def box(self) -> Box:
        """The box of its mask."""
        box = box_of(self.mask)
        assert box is not None
        return box

    def cut(self) -> tuple[Float32[np.ndarray, "h w C"], Float32[np.ndarray, "h w"], Box]:
        """Return its own colours from 0 to 1, its alpha matte, and the box of both in its photograph."""
        around = grown(self.box, round(4 * self.slack) + 2, self.mask.shape)
        left, top, right, bottom = around
        mask = self.mask[top:bottom, left:right]
        image = self.pixels[top:bottom, left:right].astype(np.float32) / np.iinfo(self.pixels.dtype).max
        alpha = alpha_matte(image, mask, self.slack)
        return foreground(image, alpha, self.slack), alpha, around

    def render(self, size: tuple[int, int]) -> Rendered | None:
        """Return colours and alpha after placement, and their box in a photograph of (height, width); None if outside.

        Alpha is 0 at every side of the box except at the photograph's border.
        """
        colours, alpha, around = self.cut()
        reach = self.placement.of(around)
        left, top = (max(0, int(np.floor(reach[i] + 1e-6))) for i in (0, 1))
        right, bottom = (min(size[1 - i], int(np.ceil(reach[2 + i] - 1e-6))) for i in (0, 1))
        if right <= left or bottom <= top:
            return None
        target = left, top, right, bottom
        (sx, sy), (ox, oy) = self.placement.scale, self.placement.offset
        if self.placement.is_shift:
            rows = slice(top - round(oy) - around[1], bottom - round(oy) - around[1])
            columns = slice(left - round(ox) - around[0], right - round(ox) - around[0])
            return colours[rows, columns], alpha[rows, columns], target
        source = (
            (left - ox) / sx - around[0], (top - oy) / sy - around[1],
            (right - ox) / sx - around[0], (bottom - oy) / sy - around[1],
        )  # fmt: skip
        joined = np.concatenate([colours * alpha[..., None], alpha[..., None]], axis=-1)
        warped = _lanczos(joined, (right - left, bottom - top), source)
        alpha = np.clip(warped[..., -1], 0, 1)
        colours = np.clip(warped[..., :-1] / np.maximum(alpha, 1e-3)[..., None], 0, 1)
        return colours, np.where(alpha < 1 / 512, 0, alpha), target


def _lanczos(
    values: Float32[np.ndarray, "H W C"], size: tuple[int, int], box: tuple[float, float, float, float]
) -> Float32[np.ndarray, "h w C"]:
    """Resample a box to (width, height). Its coordinates may be fractional and beyond the border."""
    edge = int(np.ceil(max(0.0, -box[0], -box[1], box[2] - values.shape[1], box[3] - values.shape[0])))
    padded = np.pad(values, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    moved = tuple(side + edge for side in box)
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(channel)).resize(size, Image.Resampling.LANCZOS, moved)  # type: ignore[arg-type]
        )
        for channel in np.moveaxis(padded, 2, 0)
    ]
    return np.stack(channels, axis=-1)
