"""Filling of holes: search and vote against plain loops, and properties for every image and hole."""

import inspect
from itertools import pairwise

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from scipy import ndimage

from elements_jax.fill.hole import blended, fill_hole, fill_level, padded, pyramid, texture
from elements_jax.fill.patches import COHERENCE, NEIGHBOURS, PATCH, Hole, cohere, propose, refine, search, vote
from elements_jax.fill.smooth import membrane, resize
from tests.helpers.holes import disc, few, noisy, seeds

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
@given(seeds)
def test_the_search_finds_the_nearest_of_all_known_patches(seed):
    image, _, hole, sources = small_level(np.random.default_rng(seed))
    start = jnp.full(H * W, -7, jnp.int32)
    found, distances = map(np.asarray, jax.jit(search, static_argnums=3)(image.reshape(-1, 3), hole, start, W))
    targets = np.asarray(hole.targets)[: hole.target_count]
    for target in targets:
        at = divmod(int(target), W)
        least = min(squared(image, hole, at, source) for source in sources)
        chosen = divmod(int(found[target]), W)
        assert chosen in sources
        assert squared(image, hole, at, chosen) <= least + 0.02
        assert distances[target] == pytest.approx(least, rel=1e-4, abs=0.02)
    others = np.delete(found, targets)
    assert (others == -7).all()


@few
@given(seeds)
def test_refine_takes_the_best_of_old_proposed_and_adjacent(seed):
    rng = np.random.default_rng(seed)
    image, _, hole, sources = small_level(rng)
    flat = np.array([y * W + x for y, x in sources], np.int32)
    start, coarse = rng.choice(flat, H * W), rng.integers(-1, H * W // 4, H * W // 4).astype(np.int32)
    found, distances = map(np.asarray, jax.jit(refine, static_argnums=4)(image.reshape(-1, 3), hole, start, coarse, W))
    for target in np.asarray(hole.targets)[: hole.target_count]:
        y, x = divmod(int(target), W)
        candidates = [int(start[target])]
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                py, px = np.clip(y // 2 + dy, 0, H // 2 - 1), np.clip(x // 2 + dx, 0, W // 2 - 1)
                source = coarse[py * (W // 2) + px]
                sy, sx = divmod(int(source), W // 2)
                to = np.clip(2 * (sy - py) + y, 0, H - 1) * W + np.clip(2 * (sx - px) + x, 0, W - 1)
                candidates.append(int(hole.nearest[target if source < 0 else to]))
        by, bx = divmod(min(candidates, key=lambda to: squared(image, hole, (y, x), divmod(to, W))), W)
        window = [
            int(hole.nearest[np.clip(by + dy, 0, H - 1) * W + np.clip(bx + dx, 0, W - 1)])
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        least = min(squared(image, hole, (y, x), divmod(to, W)) for to in window)
        assert distances[target] == pytest.approx(least, rel=1e-4)
        assert squared(image, hole, (y, x), divmod(int(found[target]), W)) == pytest.approx(least, rel=1e-4)


def test_propose_takes_the_parents_offset_or_the_nearest_source():
    nearest = jnp.arange(H * W, dtype=jnp.int32)
    coarse = np.full(H * W // 4, -1, np.int32)
    coarse[2 * (W // 2) + 3] = 5 * (W // 2) + 7  # the source of (2, 3): three rows below and four columns to its right
    target = jnp.asarray([5 * W + 6, 10 * W + 10])
    proposed = np.asarray(propose(target, jnp.asarray(coarse), nearest, W, (0, 0)))
    assert proposed.tolist() == [11 * W + 14, 10 * W + 10]


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
    voted = np.asarray(jax.jit(vote, static_argnums=4)(*args)).reshape(H, W, 3)
    sharp = np.asarray(jax.jit(vote, static_argnums=(4, 5))(*args, True)).reshape(H, W, 3)
    sums, total = np.zeros((H, W, 3)), np.zeros((H, W, 1))
    best, largest = np.zeros((H, W, 3)), np.zeros((H, W, 1))
    for at in targets:
        better = weights[at] > patch(largest, *at)
        patch(best, *at)[:] = np.where(better, patch(image, *divmod(int(found[at]), W)), patch(best, *at))
        patch(largest, *at)[:] = np.maximum(patch(largest, *at), weights[at])
        patch(sums, *at)[:] += weights[at] * patch(image, *divmod(int(found[at]), W))
        patch(total, *at)[:] += weights[at]
    np.testing.assert_allclose(voted[unknown], (sums / np.maximum(total, 1e-9))[unknown], atol=1e-2)
    np.testing.assert_array_equal(voted[~unknown], image[~unknown])
    np.testing.assert_allclose(sharp[unknown], best[unknown], atol=1e-2)


def test_texture_counts_as_much_as_colour():
    rng = np.random.default_rng(0)
    calm, rough = np.full((40, 40, 3), 120.0), 120 + rng.normal(0, 8, (40, 40, 1)).repeat(3, 2)
    image = np.concatenate([calm, rough], 1).astype(np.float32)
    known = np.ones((40, 80), bool)
    known[10:20, 50:60] = False
    measured = texture(image, known)
    assert measured.shape == (40, 80, 2)
    assert (measured[~known] == 0).all()
    assert measured[known].std(0).mean() == pytest.approx(image[known].std(0).mean(), rel=0.2)
    assert measured[:, :30].max() == 0
    assert measured[30:, 50:].min() > image[known].std()


@few
@given(seeds, st.integers(1, 32), st.integers(1, 32), st.floats(0, 1), st.booleans(), st.booleans())
def test_known_pixels_stay_and_hidden_ones_do_not_matter(seed, height, width, share, scattered, guided):
    rng = np.random.default_rng(seed)
    photograph = noisy(rng, height, width)
    field = rng.random((height, width))
    if not scattered:
        field = ndimage.gaussian_filter(field, 4)
    hole = field <= np.quantile(field, share)
    hole.flat[rng.integers(hole.size)] = False  # at least this one is known
    guide = resize(photograph, -(-height // 4), -(-width // 4)) if guided else None
    filled = fill_hole(photograph, hole, guide)
    assert filled.shape == photograph.shape
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[~hole], photograph[~hole])
    photograph[hole] = rng.integers(0, 256, (hole.sum(), 3))  # hidden pixels do not matter
    np.testing.assert_array_equal(fill_hole(photograph, hole, guide), filled)


@few
@given(st.tuples(*[st.integers(0, 255)] * 3), st.integers(0, 32), st.integers(0, 32), st.booleans())
def test_a_constant_picture_stays_constant(colour, y, x, guided):
    photograph = np.full((32, 32, 3), colour, np.uint8)
    guide = np.full((8, 8, 3), 100, np.uint8) if guided else None  # off by a constant, which the fit removes
    filled = fill_hole(photograph, disc(32, 32, y, x, 6), guide)
    np.testing.assert_array_equal(filled, photograph)


@few
@given(seeds)
def test_grey_pictures_stay_grey(seed):
    photograph = np.repeat(noisy(np.random.default_rng(seed), 32, 32)[..., :1], 3, 2)
    filled = fill_hole(photograph, disc(32, 32, 14, 17, 6))
    assert np.ptp(filled.astype(int), axis=2).max() == 0


@pytest.mark.parametrize("centre", [(16, 15), (16, 0), (31, 31)], ids=["middle", "side", "corner"])
def test_a_periodic_texture_is_continued_exactly(centre):
    tile = np.random.default_rng(3).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    photograph = np.tile(tile, (4, 4, 1))
    filled = fill_hole(photograph, disc(32, 32, *centre, 4))
    np.testing.assert_array_equal(filled, photograph)


def test_two_holes_are_filled_each_from_its_own_surroundings():
    photograph = np.full((32, 48, 3), (200, 40, 40), np.uint8)
    photograph[:, 24:] = (40, 40, 200)
    hole = disc(32, 48, 15, 10, 5) | disc(32, 48, 15, 37, 5)
    np.testing.assert_allclose(fill_hole(photograph, hole).astype(int), photograph, atol=2)


def test_a_gradient_is_continued_without_a_step():
    rows = np.linspace(60, 200, 64)[:, None, None] + np.zeros((1, 64, 3))
    photograph = np.rint(rows).astype(np.uint8)
    filled = fill_hole(photograph, disc(64, 64, 32, 32, 12)).astype(int)
    assert np.abs(np.diff(filled, axis=0)).max() <= 7  # the gradient itself steps by 2 or 3
    assert np.abs(np.diff(filled, axis=1)).max() <= 5
    np.testing.assert_allclose(filled, photograph, atol=12)


def test_light_at_the_rim_spreads_into_the_hole():
    voted, known = np.full((64, 64, 3), 40, np.float32), ~disc(64, 64, 32, 32, 20)
    lit = np.where(known[..., None], 46, 0).astype(np.float32)
    level = pyramid(lit, known, *(np.zeros_like(voted),) * 2)[0]
    np.testing.assert_allclose(blended(level, voted)[~known], 46, atol=0.6)
    roof = lit.copy()
    roof[52:] = 220
    roof[~known] = 0
    level = pyramid(roof, known, *(np.zeros_like(voted),) * 2)[0]
    filled = blended(level, voted)
    assert (filled[50, 32] > 120).all()  # it fades in
    assert np.abs(filled[16:40, 32] - 46).max() < 6


def test_with_nothing_known_shows_the_guide_or_fails_without_one():
    photograph, hole = np.zeros((40, 30, 3), np.uint8), np.ones((40, 30), bool)
    guide = noisy(np.random.default_rng(0), 10, 8)
    expected = np.clip(np.rint(resize(guide, 40, 30)), 0, 255)
    np.testing.assert_array_equal(fill_hole(photograph, hole, guide), expected)
    with pytest.raises(ValueError, match="which needs a guide"):
        fill_hole(photograph, hole)


def test_without_a_hole_nothing_changes():
    photograph = noisy(np.random.default_rng(0), 20, 20)
    filled = fill_hole(photograph, np.zeros((20, 20), bool))
    np.testing.assert_array_equal(filled, photograph)
    assert filled is not photograph


def test_errors_name_the_expected_input():
    photograph = np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(9, 8\).*\(8, 9, 3\)"):
        inspect.unwrap(fill_hole)(photograph, np.ones((9, 8), bool))  # without the tests' check of shapes
    with pytest.raises(ValueError, match="finite"):
        fill_hole(photograph, np.ones((8, 9), bool), np.full((2, 2, 3), np.nan, np.float32))


def test_a_membrane_solves_the_equation_of_laplace():
    """A harmonic function is its own membrane, up to half a percent of its range of 38."""
    y, x = np.mgrid[:40, :40] / 10.0
    harmonic = (x**2 - y**2 + 2 * x)[..., None].astype(np.float32)
    known = ~disc(40, 40, 18, 20, 12)
    np.testing.assert_allclose(membrane(harmonic, known), harmonic, atol=0.19)


def test_lengths_of_programs():
    assert [padded(n) for n in (1, 32, 33, 64, 65, 96, 97, 128, 129, 512, 513, 768, 769)] == [
        32, 32, 48, 64, 96, 96, 128, 128, 192, 512, 768, 768, 1024,
    ]  # fmt: skip


def test_a_coarse_pixel_is_known_if_all_pixels_it_covers_are():
    image = noisy(np.random.default_rng(0), 60, 64).astype(np.float32)
    known = ~disc(60, 64, 31, 31, 14)
    levels = pyramid(image, known, image, image)
    assert len(levels) > 1
    for fine, coarse in pairwise(levels):
        for y in range(coarse.known.shape[0]):
            for x in range(coarse.known.shape[1]):
                cell = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                assert coarse.known[y, x] == fine.known[cell].all()
                if coarse.known[y, x]:
                    np.testing.assert_allclose(coarse.image[y, x], fine.image[cell].mean((0, 1)), atol=1e-3)


def test_no_source_has_a_pixel_of_the_hole():
    image = noisy(np.random.default_rng(0), 64, 64).astype(np.float32)
    known = ~disc(64, 64, 31, 31, 9)
    level = pyramid(image, known, 0 * image, 0 * image)[0]
    _, found = fill_level(level, None, None, 0)
    chosen = np.asarray(found)[np.asarray(found) >= 0]
    assert len(chosen)
    for source in np.unique(chosen):
        assert patch(level.known, *divmod(int(source), 64)).all()
