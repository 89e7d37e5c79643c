"""Filling of holes: properties for every image and hole, and the levels of the pyramid."""

import inspect

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import ndimage

from elements_jax.fill import hole as fill
from elements_jax.fill.guide import Guide
from elements_jax.fill.hole import LEAN, SMOOTH, fill_hole, fill_level, guidance_of, texture
from elements_jax.fill.patches import PATCH
from elements_jax.fill.pyramid import pyramid
from elements_jax.fill.smooth import membrane, resize
from tests.helpers.holes import disc, few, noisy, seeds


def test_coarse_levels_lean_to_a_smooth_fill_or_a_guide():
    image, smooth = (noisy(np.random.default_rng(seed), 32, 32).astype(np.float32) for seed in (0, 1))
    level = pyramid(image, ~disc(32, 32, 15, 15, 6), smooth, image, 2 * image)[0]
    finest, coarser = (guidance_of(level, None, scale) for scale in (0, 1))
    assert finest.shares.tolist() == [0]
    assert coarser.shares.tolist() == pytest.approx([LEAN])
    assert coarser.sigmas.tolist() == [SMOOTH / 2]
    assert coarser.features.shape == (32 * 32, 0)
    guided = guidance_of(level, Guide(image, 2 * image, 0.25, [0.1, 0.4], 2.0), 1)
    assert guided.shares.tolist() == pytest.approx([LEAN * 0.6, 0.1, 0.3])
    np.testing.assert_allclose(guided.pictures, np.reshape([smooth, 2 * image, 2 * image], (3, -1, 3)))
    np.testing.assert_allclose(guided.features, image.reshape(-1, 3) / 2)


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


@pytest.mark.parametrize("curvature", [0, 8])
def test_a_membrane_solves_the_equation_of_poisson(curvature):
    """A function is the membrane of its own steps, up to half a percent of its range."""
    y, x = np.mgrid[:40, :40] / 10.0
    function = (x**2 - y**2 + 2 * x + curvature / 2 * y**2)[..., None].astype(np.float32)
    known = ~disc(40, 40, 18, 20, 12)
    steps = np.zeros((2, 40, 40, 1), np.float32)
    steps[0] = (curvature / 2 * ((y + 0.1) ** 2 - y**2))[..., None]
    np.testing.assert_allclose(membrane(function, known, steps), function, atol=0.005 * np.ptp(function))
    if not curvature:
        np.testing.assert_array_equal(membrane(function, known), membrane(function, known, steps))


def test_patches_beyond_the_image_continue_the_nearest_target():
    """Against loops over pixels; equally near targets may differ, so each is accepted."""
    image = noisy(np.random.default_rng(0), 32, 48).astype(np.float32)
    known = ~disc(32, 48, 2, 45, 12)
    level = pyramid(image, known, image, 0 * image, 0 * image)[0]
    _, found, _ = fill_level(level, None, None, 1)
    found, half = found.reshape(known.shape), PATCH // 2
    inner = np.zeros_like(known)
    inner[half : 32 - half, half : 48 - half] = True
    touching = ndimage.maximum_filter(~known, PATCH)
    sources, targets = inner & ~touching, np.argwhere(inner & touching)
    np.testing.assert_array_equal(found >= 0, touching)
    assert (touching & ~inner).sum() > 50
    for y, x in np.argwhere(touching & ~inner):
        squares = ((targets - (y, x)) ** 2).sum(1)
        continued = [
            np.clip(np.divmod(found[ty, tx], 48) + np.subtract((y, x), (ty, tx)), 0, (31, 47))
            for ty, tx in targets[squares == squares.min()]
        ]
        source = np.array(divmod(int(found[y, x]), 48))
        assert sources[tuple(source)]
        from_sources = [((np.argwhere(sources) - at) ** 2).sum(1).min() for at in continued]
        assert any(((source - at) ** 2).sum() == least for at, least in zip(continued, from_sources, strict=True))


def test_no_source_has_a_pixel_of_the_hole():
    image = noisy(np.random.default_rng(0), 64, 64).astype(np.float32)
    known = ~disc(64, 64, 31, 31, 9)
    level = pyramid(image, known, image, 0 * image, 0 * image)[0]
    _, found, _ = fill_level(level, None, None, 0)
    chosen = np.asarray(found)[np.asarray(found) >= 0]
    assert len(chosen)
    for source in np.unique(chosen):
        y, x = divmod(int(source), 64)
        assert level.known[y - PATCH // 2 : y + PATCH // 2 + 1, x - PATCH // 2 : x + PATCH // 2 + 1].all()


def test_a_hole_in_a_large_photograph_has_its_grain(monkeypatch):
    monkeypatch.setattr(fill, "LARGEST", 96)
    rng = np.random.default_rng(0)
    photograph = np.clip(noisy(rng, 240, 200) + rng.normal(0, 12, (240, 200, 3)), 0, 255).astype(np.uint8)
    hole = disc(240, 200, 120, 100, 30)
    filled = fill_hole(photograph, hole)
    np.testing.assert_array_equal(filled[~hole], photograph[~hole])
    inside, outside = (
        np.std((image - ndimage.gaussian_filter(image.astype(float), (2, 2, 0)))[hole])
        for image in (filled, photograph)
    )
    assert 0.85 < inside / outside < 1.1


def test_a_small_hole_in_a_large_photograph_keeps_full_size():
    photograph = np.tile(noisy(np.random.default_rng(0), 300, 300), (4, 4, 1))
    hole = disc(1200, 1200, 700, 500, 8)
    box = np.s_[564:837, 364:637]  # 128 px around it
    alone = fill_hole(photograph[box], hole[box])
    np.testing.assert_array_equal(fill_hole(photograph, hole)[box], alone)


def test_known_lines_thinner_than_a_small_pixel_are_continued(monkeypatch):
    monkeypatch.setattr(fill, "LARGEST", 32)
    hole = np.ones((70, 100), bool)
    hole[:, 0] = False
    filled = fill_hole(np.full((70, 100, 3), 90, np.uint8), hole)
    np.testing.assert_array_equal(filled, 90)
