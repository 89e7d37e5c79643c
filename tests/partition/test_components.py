"""Opening, largest components and measures against loops over labels."""

import hypothesis.extra.numpy as arrays
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from elements_jax.data.record import DROPPED
from partition.components import keep_largest_components, measure_elements, opening, partition_image
from partition.config import PartitionConfig

LABELS = 4
assignments = arrays.arrays(
    np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, LABELS - 1)
)


@given(assignments, st.booleans())
def test_largest_components(assignment: np.ndarray, drop_some: bool) -> None:
    if drop_some:
        assignment = np.where(assignment == 0, DROPPED, assignment)
    expected = np.full(assignment.shape, DROPPED)
    for n in range(LABELS):
        components, count = ndimage.label(assignment == n, np.ones((3, 3)))
        if count:
            expected[components == np.bincount(components.ravel())[1:].argmax() + 1] = n
    np.testing.assert_array_equal(keep_largest_components(assignment), expected)


@given(assignments)
def test_opening(assignment: np.ndarray) -> None:
    expected = np.zeros(assignment.shape, bool)
    for n in range(LABELS):
        expected |= ndimage.binary_opening(assignment == n, np.ones((3, 3)))
    np.testing.assert_array_equal(opening(assignment), expected)


@given(assignments)
def test_measures(assignment: np.ndarray) -> None:
    """Tolerance: float64 sums in another order."""
    label_map = np.where(assignment == LABELS - 1, DROPPED, assignment).astype(np.uint16)
    centroids, sizes, valid = measure_elements(label_map, LABELS + 2)
    height, width = label_map.shape
    for n in range(LABELS + 2):
        y, x = np.nonzero(label_map == n)
        assert valid[n] == (len(x) > 0)
        if len(x):
            np.testing.assert_allclose(centroids[n], [(x.mean() + 0.5) / width, (y.mean() + 0.5) / height], atol=1e-12)
            np.testing.assert_allclose(sizes[n], [(np.ptp(x) + 1) / width, (np.ptp(y) + 1) / height], atol=1e-12)
        else:
            assert not centroids[n].any()
            assert not sizes[n].any()


def test_a_bridge_falls_only_to_the_opening() -> None:
    """Two squares joined by a thin line are one element; opened, the smaller one is dropped with the line."""
    assignment = np.ones((8, 16), int)
    assignment[1:6, 1:6] = assignment[1:5, 10:14] = assignment[3, 6:10] = 0
    image = np.zeros((8, 16, 3), np.uint8)
    config = PartitionConfig(size=8, grid=2)
    whole = partition_image(image, lambda _: assignment, config)
    assert whole.dropped == 0
    opened = partition_image(image, lambda _: assignment, PartitionConfig(size=8, grid=2, opening=True))
    assert (opened.label_map == 0).sum() == 25
    assert (opened.label_map[1:5, 10:14] == DROPPED).all()
    assert list(opened.valid) == [True, True, False, False]
