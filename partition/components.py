"""Turn an assignment of pixels into a partition: the end of Algorithm 2, in NumPy, the same for every segmenter."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16
from scipy import ndimage
from skimage import measure

from elements_jax.data.record import DROPPED
from partition.config import PartitionConfig


@runtime_checkable
class Segmenter(Protocol):
    """Segments an image into at most N elements, N = config.num_elements."""

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Int[np.ndarray, "H W"]:
        """Return each pixel's element, in [0, N). An element need not be connected, and may be empty."""
        ...


@dataclass(frozen=True)
class Partition:
    """The output of Algorithm 2. Coordinates are (x, y) in [0, 1]; rows of empty elements are zero."""

    label_map: UInt16[np.ndarray, "H W"]
    """Each pixel's element, or DROPPED."""
    centroids: Float[np.ndarray, "N 2"]
    """Mean pixel of each element."""
    sizes: Float[np.ndarray, "N 2"]
    """Width and height of each element's bounding box."""
    valid: Bool[np.ndarray, " N"]
    """Which elements have pixels."""

    @property
    def dropped(self) -> float:
        """The share of pixels that belong to no element."""
        return float(np.mean(self.label_map == DROPPED))


def partition_image(image: UInt8[np.ndarray, "H W 3"], segmenter: Segmenter, config: PartitionConfig) -> Partition:
    """Run Algorithm 2: segment an image into elements, each one connected region of pixels.

    The segmenter does lines 1 to 7 (for SAM, in `assignment.py`). This function keeps the largest component of every
    element (line 8) and measures it (lines 12 to 14).
    """
    assignment = segmenter(image)
    if config.opening:
        assignment = np.where(opening(assignment), assignment, DROPPED)
    label_map = keep_largest_components(assignment)
    return Partition(label_map, *measure_elements(label_map, config.num_elements))


def opening(assignment: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return the pixels that remain when every label is opened by 3 x 3 pixels: those in a 3 x 3 square of one
    label."""
    lowest, highest = (
        reduce(assignment, size=3, mode="constant", cval=-1)
        for reduce in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    return ndimage.binary_dilation(lowest == highest, np.ones((3, 3)))


def keep_largest_components(assignment: Int[np.ndarray, "H W"]) -> UInt16[np.ndarray, "H W"]:
    """Keep the largest 8-connected component of every label, of equal ones the first by rows; drop all other pixels.

    Pixels that are DROPPED in the assignment stay DROPPED.
    """
    component, count = measure.label(assignment, background=DROPPED, connectivity=2, return_num=True)
    size = np.bincount(component.ravel(), minlength=count + 1)
    label = np.full(count + 1, DROPPED, np.uint16)  # of each component; component 0 was dropped before
    label[component] = assignment
    by_label = np.lexsort((-size, label))  # the largest component of each label comes first
    largest = by_label[np.unique(label[by_label], return_index=True)[1]]
    kept = np.full(count + 1, DROPPED, np.uint16)
    kept[largest] = label[largest]
    return kept[component]


def measure_elements(
    label_map: UInt16[np.ndarray, "H W"], num_elements: int
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"], Bool[np.ndarray, " N"]]:
    """Return centroid, size and validity of every element; see `Partition`."""
    height, width = label_map.shape
    centroids, sizes = np.zeros((num_elements, 2)), np.zeros((num_elements, 2))
    valid = np.zeros(num_elements, bool)
    for n, box in enumerate(ndimage.find_objects(label_map.astype(np.int32) + 1, num_elements)):
        if box is not None:
            rows, columns = box
            y, x = np.nonzero(label_map[box] == n)
            centroids[n] = (columns.start + x.mean() + 0.5) / width, (rows.start + y.mean() + 0.5) / height
            sizes[n] = (columns.stop - columns.start) / width, (rows.stop - rows.start) / height
            valid[n] = True
    return centroids, sizes, valid
