"""Morphology of masks, by squares. NumPy only."""

import numpy as np
from jaxtyping import Bool


def closing(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """Fill the gaps of a mask that are smaller than a square of `2 radius + 1` pixels."""
    return ~dilation(~dilation(mask, radius), radius)


def dilation(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """Return the pixels whose surrounding square, with side `2 radius + 1`, touches the mask."""
    windows = np.lib.stride_tricks.sliding_window_view
    rows = np.any(windows(np.pad(mask, ((radius, radius), (0, 0))), 2 * radius + 1, 0), axis=-1)
    return np.any(windows(np.pad(rows, ((0, 0), (radius, radius))), 2 * radius + 1, 1), axis=-1)
