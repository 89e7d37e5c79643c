"""The pyramid of a photograph with a hole: each level is half as large as the one before."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from elements_jax.fill.patches import PATCH
from elements_jax.fill.smooth import distance, shrink

EXACT = 64 * 64  # pixels of the largest level where every patch is compared with every known one
EVERY_OTHER = 128 * 128  # the same with the known ones of every other row and column, and those around the nearest
THIN = 3.0  # pixels: on the first level, no point of the hole is further than this from the known part
SOURCES = 64  # minimum number of known patches on a level
SMALLEST = 32  # pixels per side: the smallest size to which images are padded


class Level(NamedTuple):
    """One level of a pyramid; pixels that are not inside are padding."""

    image: Float[np.ndarray, "H W C"]  # colours, then `texture`; 0 where unknown
    inside: Bool[np.ndarray, "H W"]
    known: Bool[np.ndarray, "H W"]
    smooth: Float[np.ndarray, "H W C"]  # the image with its hole filled smoothly
    fitted: Float[np.ndarray, "H W 3"]  # the guide's images, 0 without one
    joined: Float[np.ndarray, "H W 3"]


def pyramid(
    image: Float[np.ndarray, "H W C"],
    known: Bool[np.ndarray, "H W"],
    smooth: Float[np.ndarray, "H W C"],
    fitted: Float[np.ndarray, "H W 3"],
    joined: Float[np.ndarray, "H W 3"],
) -> list[Level]:
    """Return levels from fine to coarse, each half as large. A pixel is known if all pixels that it covers are."""
    height, width = known.shape
    padding = ((0, padded(height) - height), (0, padded(width) - width))
    inside = np.pad(np.ones_like(known), padding)
    pictures = (np.pad(picture, (*padding, (0, 0))) for picture in (image * known[..., None], smooth, fitted, joined))
    levels = [Level(next(pictures), inside, np.pad(known, padding), *pictures)]
    while True:
        last = levels[-1]
        thin = last.known.size <= EVERY_OTHER and distance(last.inside & ~last.known).max() <= THIN
        if thin or min(last.known.shape) <= 2 * PATCH + 2:
            return levels
        inside, known = (shrink(mask[..., None].astype(np.float32))[..., 0] == 1 for mask in (last.inside, last.known))
        if patches_within(known).sum() < SOURCES:
            return levels
        image = shrink(last.image) * known[..., None]
        levels.append(Level(image, inside, known, *map(shrink, (last.smooth, last.fitted, last.joined))))


def padded(length: int) -> int:
    """Return the length to compile for: a power of two, or one and a half times one."""
    power = SMALLEST
    while power < length:
        power *= 2
    return power * 3 // 4 if power > SMALLEST and length <= power * 3 // 4 else power


def patches_within(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return the centres of patches that are completely inside the mask."""
    return ndimage.minimum_filter(mask, PATCH, mode="constant", cval=False)
