"""Algorithm 2 and Eq. 1 against an oracle in plain NumPy."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from segment_anything.modeling import Sam

from elements_jax.data.record import DROPPED
from partition.assignment import CHUNK, assign_elements, compute_assignment, compute_centroids, distance, query_grid
from partition.components import partition_image
from partition.config import PartitionConfig
from partition.photos import read_photo
from partition.segmenters.sam import SamSegmenter
from partition.sources.sample import read_sample


def upsample(s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsample bilinearly; samples are at pixel centres, and the border is extended by constant values."""

    def weights(out: int, inner: int) -> np.ndarray:
        rows = np.zeros((out, inner))
        for i in range(out):
            at = np.clip((i + 0.5) * inner / out - 0.5, 0, inner - 1)
            low = int(at)
            rows[i, low] += 1 - (at - low)
            rows[i, min(low + 1, inner - 1)] += at - low
        return rows

    return weights(size[0], s.shape[1]) @ s.astype(float) @ weights(size[1], s.shape[2]).T


def centroids(g: np.ndarray, grid: np.ndarray) -> np.ndarray:
    out = grid.copy()
    for n in range(len(grid)):
        y, x = np.nonzero(g == n)
        if len(x):
            out[n] = (x + 0.5).mean() / g.shape[1], (y + 0.5).mean() / g.shape[0]
    return out


def oracle(scores, size: tuple[int, int], config: PartitionConfig) -> np.ndarray:
    """Run the paper's Algorithm 2 line by line, with every score at image size at once; return the label map."""
    cell = (np.arange(config.grid) + 0.5) / config.grid
    q = np.array([(x, y) for y in cell for x in cell])
    u_x, u_y = (np.arange(size[1]) + 0.5) / size[1], (np.arange(size[0]) + 0.5) / size[0]
    c = q
    for _ in range(config.iterations):
        s = upsample(scores(c), size)
        c = centroids(s.argmax(0), q)
        c = config.centroid_ratio * c + (1 - config.centroid_ratio) * q
        for n in range(len(q)):
            d = (u_x[None, :] - c[n, 0]) ** 2 + (u_y[:, None] - c[n, 1]) ** 2
            s[n] -= config.beta * (d if config.distance == "squared" else np.sqrt(d))
        g = s.argmax(0)
        c = centroids(g, q)
    label_map = np.full(size, DROPPED)
    for n in range(len(q)):
        components, count = ndimage.label(g == n, np.ones((3, 3)))
        if count:
            areas = [(components == i).sum() for i in range(1, count + 1)]
            label_map[components == 1 + int(np.argmax(areas))] = n
    return label_map


def partition_with(scores, size: tuple[int, int], config: PartitionConfig) -> np.ndarray:
    """Return the label map of the real code, for scores given as a NumPy function."""

    def segmenter(image: np.ndarray) -> np.ndarray:
        as_torch = lambda points: torch.from_numpy(scores(points.numpy()))  # noqa: E731
        return assign_elements(as_torch, size, config).numpy()

    return partition_image(np.zeros((*size, 3), np.uint8), segmenter, config).label_map


def ridges(points: np.ndarray, seed: int, resolution: int = 24) -> np.ndarray:
    """Return scores like SAM's: high at pixels with a texture like the query's, and slightly higher nearby."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(size=(resolution, resolution)), 2)
    cell = (np.arange(resolution) + 0.5) / resolution
    at = np.clip((points * resolution).astype(int), 0, resolution - 1)
    unlike = np.abs(texture - texture[at[:, 1], at[:, 0]][:, None, None]) / texture.std()
    away = np.hypot(cell - points[:, :1, None], cell[:, None] - points[:, 1:, None])
    return (1 / (1 + np.exp(3 * unlike + 4 * away - 3))).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "config",
    [
        PartitionConfig(size=48, grid=5),
        PartitionConfig(size=48, grid=5, iterations=3, centroid_ratio=0.9),
        PartitionConfig(size=48, grid=6, distance="linear", beta=4.0),
        PartitionConfig(size=48, grid=4, beta=0.0, centroid_ratio=0.0),
    ],
    ids=["paper", "three-iterations", "linear", "scores-alone"],
)
def test_equals_the_oracle_pixel_for_pixel(config: PartitionConfig, seed: int) -> None:
    size = (config.size, config.size - 8)
    expected = oracle(partial(ridges, seed=seed), size, config)
    assert len(np.unique(expected)) > config.num_elements // 3  # not a trivial partition
    np.testing.assert_array_equal(partition_with(partial(ridges, seed=seed), size, config), expected)


@pytest.mark.parametrize("name", ["101085.jpg", pytest.param("3096.jpg", marks=pytest.mark.slow)])
def test_equals_the_oracle_on_photographs_with_mobile_sam(shared_data: Path, mobile_sam: Sam, name: str) -> None:
    """At 256 px (the side of SAM's masks) times a power of two, interpolation is exact: all pixels must be equal."""
    config = PartitionConfig(size=256, grid=7)
    folder = shared_data / "data" / "bsds500" / "images" / "val"
    image = read_photo(read_sample(folder / name, name), config.size).image
    segmenter = SamSegmenter(mobile_sam, config)
    s = segmenter.scores(segmenter.embed(image[None])[0], query_grid(config.grid)).numpy()
    for size in ((256, 256), (512, 512)):
        expected = oracle(lambda _: s, size, config)
        assert 0 < (expected == DROPPED).mean() < 0.05
        np.testing.assert_array_equal(partition_with(lambda _: s, size, config), expected)


def test_queries_are_cell_centres_row_by_row() -> None:
    np.testing.assert_array_equal(query_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])


def test_a_grid_pitch_costs_a_quarter() -> None:
    """Eq. 1's trade-off at the paper's settings: one pitch away a pixel pays 0.25, two pitches 1, of a score of 1."""
    grid = query_grid(16)
    cost = 64 * distance(grid, (16, 16), "squared")
    torch.testing.assert_close(cost[0, 0, :3], torch.tensor([0, 0.25, 1], dtype=torch.float64))
    torch.testing.assert_close(distance(grid, (16, 16), "linear")[17, 1, 4], torch.tensor(3 / 16, dtype=torch.float64))


def test_the_first_query_wins_ties_also_across_chunks() -> None:
    s = torch.zeros(2 * CHUNK + 3, 4, 4)
    s[[CHUNK - 1, CHUNK, 2 * CHUNK + 1], :2] = 0.5
    g = compute_assignment(s, (4, 4))
    assert (g[0] == CHUNK - 1).all()
    assert (g[3] == 0).all()


def test_an_empty_cluster_keeps_its_grid_point() -> None:
    g = torch.tensor([[0, 0, 2], [0, 0, 2]])
    grid = torch.tensor([[0.1, 0.1], [0.2, 0.9], [0.3, 0.3]], dtype=torch.float64)
    expected = torch.tensor([[1 / 3, 0.5], [0.2, 0.9], [5 / 6, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(compute_centroids(g, grid), expected)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"size": 0}, "size"),
        ({"grid": 0}, "grid"),
        ({"grid": 256}, "grid"),
        ({"size": 8, "grid": 16}, "grid"),
        ({"iterations": 0}, "iterations"),
        ({"centroid_ratio": 1.5}, "centroid_ratio"),
        ({"beta": -1.0}, "beta"),
        ({"compactness": 0.0}, "compactness"),
    ],
)
def test_config_names_the_field_that_does_not_fit(wrong: dict, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        PartitionConfig(**wrong)
