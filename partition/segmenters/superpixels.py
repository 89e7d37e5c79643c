"""Segmenters without a network: SLIC and a regular grid (Figure 16), also for images too small for SAM."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from scipy import ndimage, optimize, spatial
from skimage import segmentation

from partition.config import PartitionConfig


@dataclass(frozen=True)
class Grid:
    """Cuts the image into grid x grid cells; element n is the cell of query point n."""

    config: PartitionConfig

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Int[np.ndarray, "H W"]:
        """Return the cell of each pixel's centre; cells are numbered row by row."""
        y, x = ((2 * np.arange(side) + 1) * self.config.grid // (2 * side) for side in image.shape[:2])
        return y[:, None] * self.config.grid + x


@dataclass(frozen=True)
class Slic:
    """SLIC superpixels in pixel space (Achanta et al. 2012); each gets the number of a query point near it."""

    config: PartitionConfig

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Int[np.ndarray, "H W"]:
        """Return each pixel's superpixel, in [0, N); each superpixel is connected."""
        superpixels = segmentation.slic(
            image,
            n_segments=self.config.num_elements,
            compactness=self.config.compactness,
            # Fragments below a quarter of the mean size join a neighbour. With scikit-image's default of a half,
            # elements cross object boundaries 1.6 times as often (scenes), or there are a tenth fewer (photographs).
            min_size_factor=0.25,
            start_label=0,
        )
        superpixels = _join_smallest(superpixels, self.config.num_elements)
        return self._query_of_each(superpixels)[superpixels]

    def _query_of_each(self, superpixels: Int[np.ndarray, "H W"]) -> Int[np.ndarray, " K"]:
        """Pair superpixels with different query points so that the sum of their squared distances is least."""
        index = np.arange(superpixels.max() + 1)
        centroids = np.array(ndimage.center_of_mass(np.ones_like(superpixels), superpixels, index))
        cell = np.array(superpixels.shape) / self.config.grid
        queries = np.indices((self.config.grid,) * 2).reshape(2, -1).T  # (y, x) in cells
        cost = spatial.distance.cdist((centroids + 0.5) / cell - 0.5, queries, "sqeuclidean")
        return optimize.linear_sum_assignment(cost)[1]


def _join_smallest(superpixels: Int[np.ndarray, "H W"], at_most: int) -> Int[np.ndarray, "H W"]:
    """Join the smallest superpixel to the neighbour that it touches most until few enough remain; labels have no
    gaps."""
    superpixels = superpixels.copy()
    while (size := np.bincount(superpixels.ravel())).size > at_most:
        smallest = size.argmin()
        inside = superpixels == smallest
        around = superpixels[ndimage.binary_dilation(inside) & ~inside]
        superpixels[inside] = np.bincount(around).argmax()
        superpixels[superpixels == size.size - 1] = smallest
    return superpixels
