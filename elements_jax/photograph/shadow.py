"""Detection of the soft shadow that an object casts, which must be removed with the object."""

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from scipy import ndimage

from elements_jax.fill.smooth import distance, membrane, shrink_mask
from elements_jax.photograph.window import grown

REACH = 0.2  # reach of a shadow, in units of the object's longer side
CELLS = 12  # cells per reach: finer detail is not a shadow
DARK = 0.25, 0.96  # range of the light left by a shadow
SOFT, MOST = 0.85, 0.85  # along MOST of its border, a shadow has more than SOFT of the light
HUE = 0.06  # maximum difference of the darkening between channels
DEVIATIONS = 2.0  # a shadow is darker than the variation of the surroundings


def cast_shadow(colours: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return pixels next to objects that are darker than their surroundings, have the same hue, and fade into them.

    Things with a distinct border, such as another object that touches this one, are not included.
    """
    shadow = np.zeros_like(mask)
    pieces, _ = ndimage.label(mask)
    for n, found in enumerate(ndimage.find_objects(pieces), start=1):
        rows, columns = found
        longer = max(rows.stop - rows.start, columns.stop - columns.start)
        box = columns.start, rows.start, columns.stop, rows.stop
        left, top, right, bottom = grown(box, round(2 * REACH * longer), mask.shape)
        here = np.s_[top:bottom, left:right]
        shadow[here] |= _shadow_of(colours[here], pieces[here] == n, mask[here], REACH * longer)
    return shadow & ~mask


def _shadow_of(
    colours: UInt8[np.ndarray, "H W 3"],
    piece: Bool[np.ndarray, "H W"],
    objects: Bool[np.ndarray, "H W"],
    reach: float,
) -> Bool[np.ndarray, "H W"]:
    height, width = piece.shape
    size = tuple(max(4, round(side * CELLS / reach)) for side in (width, height))
    small = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.BOX), np.float32)
    own, away = shrink_mask(piece, size), distance(~shrink_mask(objects, size))
    near, beyond = (away > 0) & (away <= CELLS), away > CELLS
    if reach < CELLS / 2 or not near.any() or not beyond.any():
        return np.zeros_like(piece)
    light = (small + 8) / (membrane(small, beyond) + 8)  # 8 of 255: the noise of dark pixels is not a shadow
    level, hue = light.mean(2), np.ptp(light, axis=2)
    around = (small.mean(2) / (ndimage.gaussian_filter(small.mean(2), 3) + 1))[beyond]
    varies = 1.48 * np.median(np.abs(around - np.median(around)))  # the deviation of a normal distribution
    dark = near & (level > DARK[0]) & (level < min(DARK[1], 1 - DEVIATIONS * varies)) & (hue < HUE)
    shadow = np.zeros_like(own)
    outside = near & ~dark | beyond
    brightness = small.mean(2) + 8
    step = brightness / ndimage.maximum_filter(np.where(outside, brightness, 0), 3).clip(1)  # to what is outside
    found, count = ndimage.label(dark)
    for part in (found == n for n in range(1, count + 1)):
        border = part & ndimage.binary_dilation(outside)
        if (ndimage.binary_dilation(part) & own).any() and border.any() and np.mean(step[border] > SOFT) > MOST:
            shadow |= ndimage.binary_dilation(part, iterations=2)
    cells = Image.fromarray(shadow.astype(np.uint8) * 255)
    return np.asarray(cells.resize((width, height), Image.Resampling.NEAREST)) > 0
