"""Patches of the known part for a hole: search and vote, on one level of a pyramid.

The iteration follows Wexler, Shechtman and Irani, "Space-Time Completion of Video" (PAMI 2007): each patch that touches
the hole finds its nearest known patch, and each pixel of the hole becomes the weighted mean of the found patches there.
No search is random. Images are flat, N = rows x width pixels; a patch is identified by the index of its centre and must
be inside the image. Loops run over the existing centres, in arrays as long as the image, so that one program serves
every hole in images of the same size.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

PATCH = 9  # pixels per side, on every level
CHUNK = 256  # patches compared at once, which bounds the memory
NEIGHBOURS = [(0, 1), (0, -1), (1, 0), (-1, 0)]
AND_NEIGHBOURS = [(0, 0), *NEIGHBOURS]  # patches on the coarser level that propose a source; shifts around the best
# Votes have the weight exp(-d / 2 spread mean(d)), where d is the squared distance of the patches. On coarse levels a
# wide spread lets them agree on a structure; on fine ones a narrow spread keeps the grain, which averages lose.
SPREAD_COARSE, SPREAD_FINE, SPREAD_LAST = 2.0, 0.5, 8.0
GRAIN = 0.35  # share of the nearest patch in the last vote, for the grain; the rest is the mean, which errs less
COHERENCE = 1.0  # a patch may be this share further than the nearest one if it continues a neighbour's source

Scalar = Int[Array, ""] | int
AnyArray = Array | np.ndarray
Propose = Callable[[Int[Array, " T"]], Int[Array, "T S"]]
"""Proposes sources of some targets."""


class Hole(NamedTuple):
    """The unknown part of one level. Index arrays are padded with N after their `count`."""

    targets: Int[AnyArray, " N"]  # centres of the patches that touch the hole
    target_count: Scalar
    is_target: Bool[AnyArray, " N"]
    pixels: Int[AnyArray, " N"]  # pixels of the hole and its rim
    pixel_count: Scalar
    unknown: Bool[AnyArray, " N"]  # the hole
    sources: Bool[AnyArray, " N"]  # centres of known patches
    nearest: Int[AnyArray, " N"]  # the source closest to each pixel
    confidence: Float[AnyArray, " N"]  # in a pixel's value: 1 where it is known, less deeper in the hole


class Guidance(NamedTuple):
    """What guides the fill of one level, beside the patches."""

    features: Float[AnyArray, "N F"]  # a guide's colours, compared along with the image's; F = 0 without a guide
    pictures: Float[AnyArray, "K N 3"]  # the fill takes some of their low frequencies
    sigmas: Float[AnyArray, " K"]  # Gaussians in pixels that select the frequencies
    shares: Float[AnyArray, " K"]  # weights of the residual smoothed by each Gaussian


def offsets(width: int) -> Int[Array, " P"]:
    """Return the offsets from a patch's centre to its pixels."""
    steps = jnp.arange(-(PATCH // 2), PATCH // 2 + 1)
    return (steps[:, None] * width + steps).ravel()


def weights_of(target: Int[Array, " T"], hole: Hole, steps: Int[Array, " P"]) -> Float[Array, "T P"]:
    """Return the weights of the pixels of patches in distances; they sum to 1."""
    weight = hole.confidence[target[:, None] + steps]
    return weight / weight.sum(1, keepdims=True)


def searcher(stack: Float[Array, "N C"], hole: Hole, width: int, stride: int) -> Propose:
    """Return a function that finds the nearest of all sources in every `stride`-th row and column.

    Distances are means over the target's pixels, weighted by confidence, so that the surroundings decide more than what
    has been filled so far.
    """
    stack = stack - stack.mean(0)  # for the precision of the expanded square below
    steps = offsets(width)
    lattice = (jnp.arange(0, len(stack), width * stride)[:, None] + jnp.arange(0, width, stride)).ravel()
    patches = stack[jnp.clip(lattice[:, None] + steps, 0, len(stack) - 1)]
    squares, columns = (patches**2).sum(2).T, patches.reshape(len(lattice), -1).T

    def nearest(target: Int[Array, " T"]) -> Int[Array, "T 1"]:
        weight = weights_of(target, hole, steps)
        own = (weight[..., None] * stack[target[:, None] + steps]).reshape(len(target), -1)
        product = jnp.dot(own, columns, precision=lax.Precision.HIGHEST)
        distances = jnp.dot(weight, squares, precision=lax.Precision.HIGHEST) - 2 * product
        return lattice[jnp.where(hole.sources[lattice], distances, jnp.inf).argmin(1)][:, None]

    return nearest


def distances_to(
    stack: Float[Array, "N C"],
    hole: Hole,
    target: Int[Array, " T"],
    sources: Int[Array, "T S"],
    steps: Int[Array, " P"],
) -> Float[Array, "T S"]:
    """Return the squared distances of patches to some sources."""
    difference = stack[sources[..., None] + steps] - stack[target[:, None] + steps][:, None]
    return jnp.einsum("tspc,tp->ts", difference**2, weights_of(target, hole, steps))


def refine(
    stack: Float[Array, "N C"], hole: Hole, found: Int[Array, " N"], proposed: Propose, width: int
) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
    """Find a near source of each target, and its squared distance; other entries of `found` stay.

    It is the nearest of the best of the earlier and the proposed sources, and that one's neighbours.
    """
    rows, steps = len(stack) // width, offsets(width)

    def nearest_of(target: Int[Array, " T"], sources: Int[Array, "T S"]) -> tuple[Array, Array]:
        distances = distances_to(stack, hole, target, sources, steps)
        best = jnp.argmin(distances, 1)[:, None]
        return jnp.take_along_axis(sources, best, 1)[:, 0], jnp.take_along_axis(distances, best, 1)[:, 0]

    def compare(target: Int[Array, " T"]) -> tuple[Int[Array, " T"], Float[Array, " T"]]:
        best, _ = nearest_of(target, jnp.concatenate([found[target][:, None], proposed(target)], 1))
        dy, dx = jnp.array(AND_NEIGHBOURS).T
        y, x = (best // width)[:, None] + dy, (best % width)[:, None] + dx
        return nearest_of(target, hole.nearest[jnp.clip(y, 0, rows - 1) * width + jnp.clip(x, 0, width - 1)])

    return _for_targets(compare, hole, found)


def cohere(
    stack: Float[Array, "N C"], hole: Hole, found: Int[Array, " N"], distances: Float[Array, " N"], width: int
) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
    """Let each target continue the source of a neighbouring target if that is nearly as close as its own source.

    Pieces of the photograph grow, and their votes agree (Ashikhmin, "Synthesizing Natural Textures", I3D 2001).
    """
    steps = offsets(width)
    shifts = jnp.array([y * width + x for y, x in NEIGHBOURS])

    def compare(target: Int[Array, " T"]) -> tuple[Int[Array, " T"], Float[Array, " T"]]:
        neighbours = jnp.clip(target[:, None] + shifts, 0, len(stack) - 1)
        sources = jnp.clip(found[neighbours] - shifts, 0, len(stack) - 1)
        continues = hole.is_target[neighbours] & hole.sources[sources]
        theirs = jnp.where(continues, distances_to(stack, hole, target, sources, steps), jnp.inf)
        best = theirs.argmin(1)[:, None]
        source, least = (jnp.take_along_axis(a, best, 1)[:, 0] for a in (sources, theirs))
        follows = least <= (1 + COHERENCE) * distances[target]
        return jnp.where(follows, source, found[target]), jnp.where(follows, least, distances[target])

    return _for_targets(compare, hole, found)


def _for_targets(compare, hole: Hole, found: Int[Array, " N"]) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
    def chunk(i, state):
        target = lax.dynamic_slice(hole.targets, (i * CHUNK,), (CHUNK,))
        results = compare(jnp.minimum(target, len(found) - 1))
        return tuple(old.at[target].set(new, mode="drop") for old, new in zip(state, results, strict=True))

    return lax.fori_loop(0, -(-hole.target_count // CHUNK), chunk, (found, jnp.zeros(len(found))))


def propose(
    target: Int[Array, " T"],
    coarse: Int[Array, " M"],
    nearest: Int[AnyArray, " N"],
    width: int,
    parents: list[tuple[int, int]],
) -> Int[Array, "T S"]:
    """Propose sources per target, by the offsets of its parent's neighbours; -1 in `coarse` is an unknown offset."""
    rows, half = len(nearest) // width, width // 2
    dy, dx = jnp.array(parents).T
    target = target[:, None]
    y, x = target // width, target % width
    above, beside = jnp.clip(y // 2 + dy, 0, rows // 2 - 1), jnp.clip(x // 2 + dx, 0, half - 1)
    source = coarse[above * half + beside]
    to_y = jnp.clip(2 * (source // half - above) + y, 0, rows - 1)
    to_x = jnp.clip(2 * (source % half - beside) + x, 0, width - 1)
    return nearest[jnp.where(source < 0, target, to_y * width + to_x)]


def vote(
    image: Float[Array, "N C"],
    hole: Hole,
    found: Int[Array, " N"],
    weights: Float[Array, " N"],
    width: int,
    grain: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, "N C"], Int[Array, " N"]]:
    """Replace the pixels of the hole and its rim by the weighted means of the patches found over them.

    `grain` is the share of the patch with the largest weight alone. Also return the index of the pixel that this patch
    has there, the origin; that of other pixels is their own index.
    """
    steps = offsets(width)

    def chunk(i, state):
        pixel = lax.dynamic_slice(hole.pixels, (i * CHUNK,), (CHUNK,))
        centres = jnp.minimum(pixel, len(image) - 1)[:, None] - steps
        sources, weight = found[centres] + steps, weights[centres]
        best = jnp.take_along_axis(sources, weight.argmax(1)[:, None], 1)[:, 0]
        mean = (image[sources] * weight[..., None]).sum(1) / jnp.maximum(weight.sum(1), 1e-30)[:, None]
        news = grain * image[best] + (1 - grain) * mean, best
        return tuple(old.at[pixel].set(new, mode="drop") for old, new in zip(state, news, strict=True))

    return lax.fori_loop(0, -(-hole.pixel_count // CHUNK), chunk, (image, jnp.arange(len(image), dtype=jnp.int32)))


def follow(voted: Float[Array, "N C"], hole: Hole, guidance: Guidance, width: int) -> Float[Array, "N C"]:
    """Replace shares of the low frequencies of the colours by those of the guidance's pictures."""
    rows = len(voted) // width
    filled = jnp.zeros(len(voted), bool).at[hole.pixels].set(True, mode="drop")[:, None]

    def change(picture: Float[Array, "N 3"], sigma: Float[Array, ""], share: Float[Array, ""]) -> Float[Array, "N 3"]:
        residual = jnp.where(filled, picture - voted[:, :3], 0).reshape(rows, width, 3)
        vertical, horizontal = _gaussian(rows, sigma), _gaussian(width, sigma)
        smooth = jnp.einsum("yh,hwc,xw->yxc", vertical, residual, horizontal, precision=lax.Precision.HIGHEST)
        return share * smooth.reshape(-1, 3)

    changes = (change(*each) for each in zip(guidance.pictures, guidance.sigmas, guidance.shares, strict=True))
    return jnp.where(filled, voted.at[:, :3].add(sum(changes)), voted)


def _gaussian(size: int, sigma: Float[Array, ""]) -> Float[Array, "size size"]:
    """Return a matrix that smooths a column of pixels."""
    kernel = jnp.exp(-(((jnp.arange(size)[:, None] - jnp.arange(size)) / sigma) ** 2) / 2)
    return kernel / kernel.sum(1, keepdims=True)


@partial(jax.jit, static_argnames=("width", "stride"))
def complete(
    image: Float[Array, "N C"],
    hole: Hole,
    coarse: Int[Array, " M"],
    first: Bool[Array, ""],
    iterations: Scalar,
    finest: Bool[Array, ""] | bool,
    guidance: Guidance,
    *,
    width: int,
    stride: int | None,
) -> tuple[Float[Array, "N C"], Int[Array, " N"], Int[Array, " N"]]:
    """Fill one level. Return the image, the source of each target, and the origin of each pixel in `vote`.

    The sources of other pixels are -1.

    `coarse` contains the sources of the coarser level; the first level starts from the content of `image`. Without a
    stride, sources are searched only around those of the coarser level.
    """
    spread = SPREAD_COARSE if stride else SPREAD_FINE
    confidence = jnp.where(hole.is_target, hole.confidence, 0)

    def parents(target: Int[Array, " T"]) -> Int[Array, "T S"]:
        return propose(target, coarse, hole.nearest, width, AND_NEIGHBOURS)

    def search(voted, found, last):
        current = jnp.where(hole.unknown[:, None], voted, image)
        stack = jnp.concatenate([current, guidance.features], 1)
        proposed = searcher(stack, hole, width, stride) if stride else parents
        found, distances = refine(stack, hole, found, proposed, width)
        found, distances = cohere(stack, hole, found, distances, width)
        mean = jnp.sum(jnp.where(hole.is_target, distances, 0)) / hole.target_count
        return found, confidence * jnp.exp(-distances / (2 * jnp.where(last, SPREAD_LAST, spread) * mean + 1e-5))

    def start(voted, found, last):
        return found, confidence

    def turn(i, state):  # the start is a turn as well, so that a vote is compiled only once
        voted, found, _ = state
        last = finest & (i == iterations)
        found, weights = lax.cond(i == 0, start, search, voted, found, last)
        voted, origin = vote(image, hole, found, weights, width, GRAIN * last)
        voted = follow(voted, hole, guidance, width)
        return jnp.where(first & (i == 0), image, voted), found, origin

    found = propose(jnp.arange(len(image)), coarse, hole.nearest, width, [(0, 0)])[:, 0]
    voted, found, origin = lax.fori_loop(0, iterations + 1, turn, (image, found, found))
    return voted, jnp.where(hole.is_target, found, -1), origin
