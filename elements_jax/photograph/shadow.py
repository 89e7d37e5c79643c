"""The soft shadow that an object casts on what is behind it, which has to go with the object."""

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from scipy import ndimage

from elements_jax.fill.smooth import distance, membrane
from elements_jax.photograph.window import box_of, grown

REACH = 0.2  # how far a shadow reaches from its object, in units of the object's longer side
CELLS = 12  # cells that the reach is divided into: finer detail is no shadow
DARK, SOFT = (0.4, 0.95), 0.8  # light that a shadow leaves; at its border it has faded to more than SOFT
HUE = 0.06  # how differently it may darken the channels
DEVIATIONS = 2.5  # a shadow is darker than the surroundings vary


def cast_shadow(colours: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels next to an object that are darker than their surroundings, of the same hue, and fade to them.

    Things with a border of their own, such as another object that touches this one, are left alone.
    """
    shadow, box = np.zeros_like(mask), box_of(mask)
    if box is None:
        return shadow
    reach = REACH * max(box[2] - box[0], box[3] - box[1])
    left, top, right, bottom = grown(box, round(2 * reach), mask.shape)
    size = tuple(max(4, round(side * CELLS / reach)) for side in (right - left, bottom - top))
    here = np.s_[top:bottom, left:right]
    small = np.asarray(Image.fromarray(colours[here]).resize(size, Image.Resampling.BOX), np.float32)
    own = np.asarray(Image.fromarray(mask[here].astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 0
    away = distance(~own)
    near, beyond = (away > 0) & (away <= CELLS), away > CELLS
    if not near.any() or not beyond.any():
        return shadow
    light = (small + 8) / (membrane(small, beyond) + 8)  # 8 of 255: the noise of dark pixels is no shadow
    level, hue = light.mean(2), np.ptp(light, axis=2)
    varies = np.std(small[beyond].mean(1) / ndimage.gaussian_filter(small.mean(2), 3)[beyond])
    dark = near & (level > DARK[0]) & (level < min(DARK[1], 1 - DEVIATIONS * varies)) & (hue < HUE)
    found, count = ndimage.label(dark)
    outside = near & ~dark | beyond
    for n in range(1, count + 1):
        part = found == n
        grown_by_one = ndimage.binary_dilation(part)
        border = part & ndimage.binary_dilation(outside)
        if (grown_by_one & own).any() and border.any() and np.median(level[border]) > SOFT:
            cells = Image.fromarray(grown_by_one.astype(np.uint8) * 255)
            shadow[here] |= np.asarray(cells.resize((right - left, bottom - top), Image.Resampling.NEAREST)) > 0
    return shadow & ~mask
