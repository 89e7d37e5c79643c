"""Joins pieces of a photograph that meet in a hole, like those of a montage, by their gradients.

See Agarwala et al., "Interactive Digital Photomontage" (SIGGRAPH 2004).
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from elements_jax.fill.pyramid import Level
from elements_jax.fill.smooth import around, distance, membrane

RIM = 2  # pixels around the hole whose error in the vote corrects the inside
SEAM = 32.0  # larger differences at the rim or between pieces, from 0 to 255, are edges of objects
BLEED = 6.0  # pixels in which these fade


def blended(
    level: Level, voted: Float[np.ndarray, "H W C"], origin: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "H W 3"]:
    """Return the voted colours, joined with the surroundings of the hole and with each other, so that light continues.

    The differences at the hole's rim, and between pieces of the photograph that meet in the hole, spread over the hole.
    Large ones are edges of objects: those at the rim fade within a few pixels, and those between pieces stay. Far from
    the rim the differences between pieces would add up to any colour, so their sum is bounded.
    """
    unknown = level.inside & ~level.known
    rim = level.known & ndimage.binary_dilation(unknown, np.ones((3, 3)), RIM)
    near = around(unknown, RIM + 1)
    colours = voted[..., :3].copy()
    difference = (level.image[..., :3] - colours)[near]
    small = limited(difference)
    known, depth = (rim | ~unknown)[near], distance(unknown[near])[..., None]
    joined = membrane(0 * small, known, steps_between(level, origin, near))
    joined /= np.sqrt(1 + np.mean(joined**2, 2, keepdims=True) / SEAM**2)
    light = membrane(small, known) + membrane(difference - small, known) * np.exp(-depth / BLEED)
    colours[near] += light + joined
    return colours


def limited(difference: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """Return differences with large ones, which are edges of objects, reduced."""
    return difference / (1 + (np.mean(difference**2, 2, keepdims=True) / SEAM**2) ** 2)


def steps_between(
    level: Level, origin: Int[np.ndarray, " N"], box: tuple[slice, slice]
) -> Float[np.ndarray, "2 h w 3"]:
    """Return, in a box, the changes down and to the right of a correction that joins the pieces of the photograph.

    Within a piece the correction is constant. Between two neighbouring pixels of different pieces it changes by the
    difference of the pieces, the mean of those at both pixels. `origin` is that of `patches.vote`.
    """
    width = level.known.shape[1] + 2
    known = np.pad(level.known, 1).ravel()
    colours = np.pad(level.image[..., :3], ((1, 1), (1, 1), (0, 0))).reshape(-1, 3)
    y, x = np.divmod(origin.reshape(level.known.shape)[box], width - 2)
    shown = (y + 1) * width + x + 1
    steps = np.zeros((2, *shown.shape, 3), np.float32)
    for axis, next_one in enumerate((width, 1)):
        along = np.moveaxis(shown, axis, 0)
        before, after = along[:-1], along[1:]
        both_known = (known[before + next_one] & known[after - next_one])[..., None]
        step = (colours[before] + colours[before + next_one] - colours[after - next_one] - colours[after]) / 2
        np.moveaxis(steps[axis], axis, 0)[:-1] = limited(np.where(both_known, step, 0))
    return steps
