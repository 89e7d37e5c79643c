"""Search and vote on one level of a pyramid, against plain loops."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from scipy import ndimage

from elements_jax.fill.patches import (
    COHERENCE,
    NEIGHBOURS,
    PATCH,
    Guidance,
    Hole,
    cohere,
    follow,
    propose,
    refine,
    searcher,
    vote,
)
from tests.helpers.holes import few, seeds

H, W = 20, 24
R = PATCH // 2


def patch(image: np.ndarray, y: int, x: int) -> np.ndarray:
    return image[y - R : y + R + 1, x - R : x + R + 1]


def small_level(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Hole, list[tuple[int, int]]]:
    """Return a random image, its hole in two forms, and the centres of the known patches."""
    image = rng.integers(0, 256, (H, W, 3)).astype(np.float32)
    unknown = np.zeros((H, W), bool)
    y, x = rng.integers(0, H - 3), rng.integers(0, W - 3)
    unknown[y : y + 3, x : x + 3] = True
    centres = [(y, x) for y in range(R, H - R) for x in range(R, W - R)]
    sources = [at for at in centres if not patch(unknown, *at).any()]
    targets = [at for at in centres if patch(unknown, *at).any()]
    is_source = np.zeros((H, W), bool)
    is_source[tuple(np.transpose(sources))] = True
    near = ndimage.distance_transform_edt(~is_source, return_distances=False, return_indices=True)
    is_target = np.zeros((H, W), bool)
    is_target[tuple(np.transpose(targets))] = True
    confidence = np.where(unknown, rng.uniform(0.3, 1, (H, W)), 1)

    def indices(flat: np.ndarray) -> jax.Array:
        return jnp.asarray(np.pad(flat, (0, H * W - len(flat)), constant_values=H * W), jnp.int32)

    pixels = np.flatnonzero(unknown)
    hole = Hole(
        indices(np.array([y * W + x for y, x in targets])),
        len(targets),
        jnp.asarray(is_target.ravel()),
        indices(pixels),
        len(pixels),
        jnp.asarray(unknown.ravel()),
        jnp.asarray(is_source.ravel()),
        jnp.asarray(near[0] * W + near[1], jnp.int32).ravel(),
        jnp.asarray(confidence.ravel(), jnp.float32),
    )
    return image, unknown, hole, sources


def squared(image: np.ndarray, hole: Hole, target: tuple[int, int], source: tuple[int, int]) -> float:
    difference = patch(image, *target).astype(float) - patch(image, *source)
    weight = patch(np.asarray(hole.confidence, float).reshape(H, W), *target)
    return float(((difference**2).sum(2) * weight).sum() / weight.sum())


@few
@given(seeds, st.sampled_from((1, 2)))
def test_the_search_finds_the_nearest_patch_of_its_lattice(seed, stride):
    image, _, hole, sources = small_level(np.random.default_rng(seed))
    targets = np.asarray(hole.targets)[: hole.target_count]

    @jax.jit
    def search(stack, hole, target):
        return searcher(stack, hole, W, stride)(target)

    found = np.asarray(search(image.reshape(-1, 3), hole, jnp.asarray(targets)))
    assert found.shape == (len(targets), 1)
    candidates = [(y, x) for y, x in sources if y % stride == x % stride == 0]
    for target, source in zip(targets.tolist(), found[:, 0].tolist(), strict=True):
        at = divmod(target, W)
        assert divmod(source, W) in candidates
        least = min(squared(image, hole, at, candidate) for candidate in candidates)
        assert squared(image, hole, at, divmod(source, W)) <= least + 0.02


@few
@given(seeds)
def test_refine_takes_the_best_of_old_proposed_and_adjacent(seed):
    rng = np.random.default_rng(seed)
    image, _, hole, sources = small_level(rng)
    flat = np.array([y * W + x for y, x in sources], np.int32)
    start, proposed = rng.choice(flat, H * W), rng.choice(flat, (H * W, 2))

    @jax.jit
    def refined(stack, hole, start, proposed):
        return refine(stack, hole, start, lambda target: proposed[target], W)

    found, distances = map(np.asarray, refined(image.reshape(-1, 3), hole, start, proposed))
    targets = np.asarray(hole.targets)[: hole.target_count]
    for target in targets:
        at = divmod(int(target), W)
        candidates = [int(start[target]), *proposed[target].tolist()]
        by, bx = divmod(min(candidates, key=lambda to: squared(image, hole, at, divmod(to, W))), W)
        window = [
            int(hole.nearest[np.clip(by + dy, 0, H - 1) * W + np.clip(bx + dx, 0, W - 1)])
            for dy, dx in [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
        ]
        least = min(squared(image, hole, at, divmod(to, W)) for to in window)
        assert distances[target] == pytest.approx(least, rel=1e-4)
        assert squared(image, hole, at, divmod(int(found[target]), W)) == pytest.approx(least, rel=1e-4)
    np.testing.assert_array_equal(np.delete(found, targets), np.delete(start, targets))


@few
@given(seeds, st.integers(-1, 1), st.integers(-1, 1))
def test_propose_takes_the_offset_of_a_parents_neighbour(seed, dy, dx):
    rng = np.random.default_rng(seed)
    nearest = rng.integers(0, H * W, H * W).astype(np.int32)
    coarse = rng.integers(-1, H * W // 4, H * W // 4).astype(np.int32)
    target = np.arange(H * W, dtype=np.int32)
    both = propose(jnp.asarray(target), jnp.asarray(coarse), jnp.asarray(nearest), W, [(0, 0), (dy, dx)])
    proposed = np.asarray(both)[:, 1]
    for y, x in np.ndindex(H, W):
        py, px = np.clip(y // 2 + dy, 0, H // 2 - 1), np.clip(x // 2 + dx, 0, W // 2 - 1)
        source = coarse[py * (W // 2) + px]
        sy, sx = divmod(int(source), W // 2)
        to = np.clip(2 * (sy - py) + y, 0, H - 1) * W + np.clip(2 * (sx - px) + x, 0, W - 1)
        assert proposed[y * W + x] == nearest[y * W + x if source < 0 else to]


@few
@given(seeds)
def test_a_target_continues_a_neighbour_if_nearly_as_close(seed):
    rng = np.random.default_rng(seed)
    image, _, hole, sources = small_level(rng)
    image = ndimage.uniform_filter(image, (5, 5, 0))  # so that other patches are nearly as close
    targets = [divmod(int(t), W) for t in np.asarray(hole.targets)[: hole.target_count]]
    found = {at: sources[rng.integers(len(sources))] for at in targets}
    own = {at: squared(image, hole, at, found[at]) for at in targets}
    flat, distances = np.full(H * W, -1, np.int32), np.zeros(H * W, np.float32)
    for (y, x), (sy, sx) in found.items():
        flat[y * W + x], distances[y * W + x] = sy * W + sx, own[y, x]
    args = image.reshape(-1, 3), hole, jnp.asarray(flat), jnp.asarray(distances), W
    joined, after = map(np.asarray, jax.jit(cohere, static_argnums=4)(*args))
    for y, x in targets:
        continued = [
            (found[y + dy, x + dx][0] - dy, found[y + dy, x + dx][1] - dx)
            for dy, dx in NEIGHBOURS
            if (y + dy, x + dx) in found
        ]
        least = min((squared(image, hole, (y, x), to) for to in continued if to in sources), default=np.inf)
        expected = least if least <= (1 + COHERENCE) * own[y, x] else own[y, x]
        assert after[y * W + x] == pytest.approx(expected, rel=1e-4)
        assert squared(image, hole, (y, x), divmod(int(joined[y * W + x]), W)) == pytest.approx(expected, rel=1e-4)


@few
@given(seeds)
def test_a_vote_is_the_weighted_mean_of_the_found_patches(seed):
    rng = np.random.default_rng(seed)
    image, unknown, hole, sources = small_level(rng)
    found = np.full((H, W), -1, np.int32)
    targets = [divmod(int(t), W) for t in np.asarray(hole.targets)[: hole.target_count]]
    for at in targets:
        y, x = sources[rng.integers(len(sources))]
        found[at] = y * W + x
    weights = np.where(hole.is_target, rng.uniform(0.5, 1, H * W), 0).astype(np.float32).reshape(H, W)
    args = image.reshape(-1, 3), hole, found.ravel(), weights.ravel(), W
    flat, origin = map(np.asarray, jax.jit(vote, static_argnums=4)(*args))
    grainy, again = map(np.asarray, jax.jit(vote, static_argnums=4)(*args, 0.3))
    voted = flat.reshape(H, W, 3)
    numbers = np.arange(H * W).reshape(H, W, 1)
    sums, total = np.zeros((H, W, 3)), np.zeros((H, W, 1))
    best, largest = numbers.copy(), np.zeros((H, W, 1))
    for at in targets:
        better = weights[at] > patch(largest, *at)
        patch(best, *at)[:] = np.where(better, patch(numbers, *divmod(int(found[at]), W)), patch(best, *at))
        patch(largest, *at)[:] = np.maximum(patch(largest, *at), weights[at])
        patch(sums, *at)[:] += weights[at] * patch(image, *divmod(int(found[at]), W))
        patch(total, *at)[:] += weights[at]
    np.testing.assert_allclose(voted[unknown], (sums / np.maximum(total, 1e-9))[unknown], atol=1e-2)
    np.testing.assert_array_equal(voted[~unknown], image[~unknown])
    copied = image.reshape(-1, 3)[best[..., 0]]
    np.testing.assert_allclose(grainy.reshape(H, W, 3)[unknown], (0.3 * copied + 0.7 * voted)[unknown], atol=1e-2)
    np.testing.assert_array_equal(origin.reshape(H, W)[unknown], best[unknown][:, 0])
    np.testing.assert_array_equal(origin.reshape(H, W)[~unknown], numbers[~unknown][:, 0])
    np.testing.assert_array_equal(again, origin)


@few
@given(seeds)
def test_low_frequencies_follow_the_pictures_by_their_shares(seed):
    rng = np.random.default_rng(seed)
    image, unknown, hole, _ = small_level(rng)
    pictures, sigmas, shares = rng.uniform(0, 255, (2, H, W, 3)), rng.uniform(0.5, 3, 2), rng.uniform(0, 1, 2)
    expected = image.astype(float)
    for picture, sigma, share in zip(pictures, sigmas, shares, strict=True):
        down, along = (np.exp(-(((np.arange(n)[:, None] - np.arange(n)) / sigma) ** 2) / 2) for n in (H, W))
        residual = np.where(unknown[..., None], picture - image, 0)
        smooth = np.einsum("yh,hwc,xw->yxc", down / down.sum(1)[:, None], residual, along / along.sum(1)[:, None])
        expected += np.where(unknown[..., None], share * smooth, 0)
    guidance = Guidance(jnp.zeros((H * W, 0)), *map(jnp.asarray, (pictures.reshape(2, -1, 3), sigmas, shares)))
    followed = jax.jit(follow, static_argnums=3)(image.reshape(-1, 3), hole, guidance, W)
    np.testing.assert_allclose(np.asarray(followed).reshape(H, W, 3), expected, atol=2e-2)
