"""Image element partition: Algorithm 2 and Eq. 1 of the paper (Section 3.1, Appendix C.3), in PyTorch.

Points and centroids are (x, y) in unit coordinates: the image spans [0, 1] x [0, 1], and the centre of its first pixel
is (0.5 / W, 0.5 / H). `s` are affinities of N query points with an image's pixels; `g` is an assignment: each pixel's
element.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from partition.config import PartitionConfig

CHUNK = 16
"""Queries whose scores are in memory at image size at once: 32 MB at 512 x 512; all 256 would take 512 MB."""


@torch.inference_mode()
def assign_elements(
    segmenter: Callable[[Float[Tensor, "N 2"]], Float[Tensor, "N h w"]], size: tuple[int, int], config: PartitionConfig
) -> Int[Tensor, "H W"]:
    """Run lines 1 to 7 of Algorithm 2; return each pixel's element, in [0, N). Line 8 and the outputs are in
    `components.py`.

    Args:
        segmenter: M(x, .), which maps query points to their affinity in [0, 1] with every pixel, at any resolution.
        size: height and width of the image x.
    """
    grid = centroids = query_grid(config.grid)  # Q and C_0
    for _ in range(config.iterations):
        s = segmenter(centroids)
        grid = grid.to(s.device)
        centroids = compute_centroids(compute_assignment(s, size), empty=grid)
        centroids = adjust_centroids(centroids, grid, config)
        g = compute_assignment_with_distance(s, centroids, size, config)
        centroids = compute_centroids(g, empty=grid)
    return g


def query_grid(grid: int) -> Float[Tensor, "N 2"]:
    """Return Q, the query points: the centres of grid x grid cells, row by row."""
    centres = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def compute_assignment(s: Float[Tensor, "N h w"], size: tuple[int, int]) -> Int[Tensor, "H W"]:
    """Return SAM's assignment, argmax_n s(m, n); of equal scores the first query's wins."""
    return _running_argmax(_upsample(s, size))


def compute_assignment_with_distance(
    s: Float[Tensor, "N h w"], centroids: Float[Tensor, "N 2"], size: tuple[int, int], config: PartitionConfig
) -> Int[Tensor, "H W"]:
    """Compute Eq. 1: argmax_n s(m, n) - beta * d(m, n)."""
    chunks = zip(_upsample(s, size), centroids.split(CHUNK), strict=True)
    return _running_argmax(s_m - config.beta * distance(c, size, config.distance) for s_m, c in chunks)


def distance(centroids: Float[Tensor, "n 2"], size: tuple[int, int], kind: str) -> Float[Tensor, "n H W"]:
    """Return d(m, n) from every pixel to every centroid, Euclidean ("linear") or "squared", in unit coordinates."""
    y, x = ((torch.arange(side, device=centroids.device, dtype=torch.float64) + 0.5) / side for side in size)
    squared = (y - centroids[:, 1:])[:, :, None] ** 2 + (x - centroids[:, :1])[:, None, :] ** 2
    return squared if kind == "squared" else squared.sqrt()


def adjust_centroids(
    centroids: Float[Tensor, "N 2"], grid: Float[Tensor, "N 2"], config: PartitionConfig
) -> Float[Tensor, "N 2"]:
    """Move centroids towards Q, so that they do not collapse: the centroid adjustment of Algorithm 2."""
    return config.centroid_ratio * centroids + (1 - config.centroid_ratio) * grid


def compute_centroids(g: Int[Tensor, "H W"], empty: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
    """Return each element's mean pixel, in unit coordinates; an element without pixels gets its row of `empty`."""
    count = torch.bincount(g.flatten(), minlength=len(empty))

    def mean(pixel: Tensor, side: int) -> Tensor:
        # Halves add up exactly in float64, so the order of the sum, which differs between devices, does not matter.
        total = torch.bincount(g.flatten(), pixel.expand_as(g).flatten().double() + 0.5, minlength=len(empty))
        return total / count / side

    height, width = g.shape
    x, y = torch.arange(width, device=g.device), torch.arange(height, device=g.device)[:, None]
    centroids = torch.stack([mean(x, width), mean(y, height)], dim=-1).to(empty)
    return torch.where(count[:, None] > 0, centroids, empty)


def _upsample(s: Float[Tensor, "N h w"], size: tuple[int, int]) -> Iterator[Float[Tensor, "n H W"]]:
    """Resize the scores to image size, bilinearly, CHUNK queries at a time.

    The result is float64: where several queries score almost 1, as in a wide sky, rounding in float32 would decide
    their order, and so would the device.
    """
    for chunk in s.split(CHUNK):
        yield F.interpolate(chunk[:, None].double(), size, mode="bilinear", align_corners=False)[:, 0]


def _running_argmax(chunks: Iterable[Float[Tensor, "n H W"]]) -> Int[Tensor, "H W"]:
    """Return the argmax over the first axis of all chunks, with one chunk in memory; the first of equals wins."""
    chunks = iter(chunks)
    first = next(chunks)
    (best, g), start = first.max(dim=0), len(first)
    for values in chunks:
        value, index = values.max(dim=0)
        better = value > best
        best, g = torch.where(better, value, best), torch.where(better, start + index, g)
        start += len(values)
    return g
