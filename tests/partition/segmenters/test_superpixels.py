"""SLIC and grid: at most N connected elements, each at its query point."""

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy import ndimage

from elements_jax.scenes.drawn import render, scene
from partition.components import measure_elements, partition_image
from partition.config import PartitionConfig
from partition.segmenters.superpixels import Grid, Slic


def astronaut(size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(skimage.data.astronaut()).resize((size, size)))


@pytest.mark.parametrize(("size", "grid"), [(64, 8), (50, 7), (9, 9)])
def test_grid_gives_each_pixel_its_nearest_query(size: int, grid: int) -> None:
    config = PartitionConfig(size=size, grid=grid)
    label_map = Grid(config)(np.zeros((size, size, 3), np.uint8))
    pixel, query = (np.arange(size) + 0.5) / size, (np.arange(grid) + 0.5) / grid
    nearest = np.abs(pixel[:, None] - query).argmin(1)
    np.testing.assert_array_equal(label_map, nearest[:, None] * grid + nearest)


@pytest.mark.parametrize(("size", "grid"), [(64, 8), (100, 16), (128, 5)])
def test_slic_gives_at_most_n_connected_elements_near_queries(size: int, grid: int) -> None:
    """scikit-image itself would give more than N at 100 px and a grid of 16."""
    config = PartitionConfig(size=size, grid=grid)
    image = astronaut(size)
    assignment = Slic(config)(image)
    assert assignment.min() >= 0
    assert assignment.max() < config.num_elements
    result = partition_image(image, Slic(config), config)
    assert result.dropped == 0  # every superpixel is connected already
    assert result.valid.mean() > 0.8
    query = (np.stack([np.arange(grid**2) % grid, np.arange(grid**2) // grid], axis=-1) + 0.5) / grid
    away = np.linalg.norm(result.centroids - query, axis=1)[result.valid] * grid
    assert away.mean() < 0.75  # in cells; two superpixels may be nearest to the same query
    np.testing.assert_array_equal(assignment, Slic(config)(image))


def test_slic_numbers_a_flat_image_as_the_grid() -> None:
    config = PartitionConfig(size=64, grid=8)
    flat = np.full((64, 64, 3), 90, np.uint8)
    slic, grid = (measure_elements(kind(config)(flat).astype(np.uint16), 64)[0] for kind in (Slic, Grid))
    np.testing.assert_allclose(slic, grid, atol=0.5 / 8)  # within half a cell


def test_slic_follows_objects_better_than_the_grid() -> None:
    """This counts pixels on the wrong side of an object's boundary if every element belongs to the object it mostly
    covers."""

    def astray(kind: type) -> float:
        shares = []
        for seed in range(8):
            image, objects = render(scene(seed))
            assignment = kind(PartitionConfig(size=64, grid=8))(image)
            overlap = np.zeros((64, objects.max() + 1), int)
            np.add.at(overlap, (assignment, objects), 1)
            shares.append(1 - overlap.max(1).sum() / objects.size)
        return float(np.mean(shares))

    assert astray(Slic) < 0.3 * astray(Grid)


def test_an_element_is_one_region() -> None:
    assignment = Slic(PartitionConfig(size=64, grid=8))(render(scene(3))[0])
    for n in np.unique(assignment):
        assert ndimage.label(assignment == n)[1] == 1
