"""Holes and photographs to fill."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from scipy import ndimage

few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**31)


def noisy(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return an image of blobs and grain."""
    blobs = ndimage.gaussian_filter(rng.normal(0, 1, (height, width, 3)), (4, 4, 0))
    return np.clip(128 + 400 * blobs + rng.normal(0, 5, blobs.shape), 0, 255).astype(np.uint8)


def disc(height: int, width: int, y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
