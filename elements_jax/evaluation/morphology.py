"""Morphology of masks, by squares. NumPy only."""

import numpy as np
from jaxtyping import Bool


def closing(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """Fill the gaps of a mask into which no square of `2 radius + 1` pixels fits."""
    return ~dilation(~dilation(mask, radius), radius)


def dilation(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """The pixels of which the square around them, `2 radius + 1` a side, touches the mask."""
    for axis in (0, 1):
        pads = [(radius, radius) if each == axis else (0, 0) for each in (0, 1)]
        mask = np.lib.stride_tricks.sliding_window_view(np.pad(mask, pads), 2 * radius + 1, axis).any(-1)
    return mask
