"""Morphology of masks, by squares. NumPy only."""

import numpy as np
from jaxtyping import Bool


def closing(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """Fill the gaps of a mask into which no square of `2 radius + 1` pixels fits."""
    return ~dilation(~dilation(mask, radius), radius)


def dilation(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """The pixels of which the square around them, `2 radius + 1` a side, touches the mask."""
    windows = np.lib.stride_tricks.sliding_window_view
    rows = np.any(windows(np.pad(mask, ((radius, radius), (0, 0))), 2 * radius + 1, 0), axis=-1)
    return np.any(windows(np.pad(rows, ((0, 0), (radius, radius))), 2 * radius + 1, 1), axis=-1)
