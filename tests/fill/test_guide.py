"""A model's guide for a hole: fitted to its surroundings, and followed only as far as it is right there."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given
from scipy import ndimage

from elements_jax.fill.guide import bands, fit_guide, probes_for
from elements_jax.fill.hole import fill_hole
from elements_jax.fill.smooth import distance, membrane, resize
from tests.helpers.holes import disc, few, noisy, seeds


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return grainy red with a grainy blue disc at the right, and another one in the hole at the left."""
    rng = np.random.default_rng(5)
    truth = np.full((64, 64, 3), (180.0, 60, 60))
    truth[disc(64, 64, 32, 18, 8) | disc(64, 64, 32, 48, 10)] = (60, 60, 180)
    truth += rng.normal(0, 8, (64, 64, 1))
    return np.clip(truth, 0, 255).astype(np.uint8), disc(64, 64, 32, 18, 13)


def error(filled: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    return float(np.abs(filled[hole].astype(float) - truth[hole]).mean())


def test_a_guide_adds_unknown_content_with_the_patches_grain():
    truth, hole = scene()
    guide = resize(truth, 16, 16)
    guided, alone = fill_hole(truth, hole, guide), fill_hole(truth, hole)
    assert error(guided, truth, hole) < 0.5 * error(alone, truth, hole)
    inner = disc(64, 64, 32, 18, 5)
    smooth = np.abs(guided.astype(float) - ndimage.uniform_filter(guided.astype(float), (5, 5, 0)))[inner].mean()
    real = np.abs(truth.astype(float) - ndimage.uniform_filter(truth.astype(float), (5, 5, 0)))[inner].mean()
    assert 0.6 * real < smooth < 1.4 * real


def test_a_guide_of_another_picture_loses_its_weight():
    truth, hole = scene()
    fitted = fit_guide(truth, hole, resize(noisy(np.random.default_rng(1), 64, 64), 16, 16))
    assert fitted.trust < 0.1
    assert max(fitted.trusts) < 0.2


@few
@given(seeds, st.floats(0.7, 1.4), st.floats(-30, 30))
def test_a_gain_and_an_offset_of_each_channel_are_found(seed, gain, offset):
    truth = noisy(np.random.default_rng(seed), 64, 64)
    hole = disc(64, 64, 30, 30, 12)
    guide = resize(truth, 16, 16)
    fitted = fit_guide(truth, hole, (guide * [gain, 1, 1] + [0, offset, 0]).astype(np.float32))
    np.testing.assert_allclose(fitted.fitted, resize(guide, 64, 64), atol=3)
    assert fitted.trust > 0.98 * fit_guide(truth, hole, guide.astype(np.float32)).trust


def test_a_guide_that_is_smooth_inside_the_hole_is_trusted_less():
    truth = noisy(np.random.default_rng(2), 64, 64)
    hole = disc(64, 64, 30, 30, 14)
    right = fit_guide(truth, hole, resize(truth, 32, 32))
    smooth = fit_guide(truth, hole, resize(membrane(truth.astype(np.float32), ~hole), 32, 32))
    assert right.trust > 0.9
    assert smooth.trust < 0.5 * right.trust
    assert smooth.trusts[0] < 0.5 * right.trusts[0]


def test_a_guide_that_is_wrong_in_the_probes_is_not_followed():
    """It shows the true surroundings, but lively wrong content in the hole and in the probes.

    The coarsest band has few values in a probe and may agree by chance, so this takes the mean of several images.
    """
    hole = disc(96, 96, 40, 44, 12)
    probes, trusts_of_wrong = probes_for(hole), []
    for seed in range(3, 15):
        truth, wrong = noisy(np.random.default_rng(seed), 96, 96), noisy(np.random.default_rng(seed + 1), 96, 96)
        wrong = resize(np.where((hole | probes)[..., None], wrong, truth), 48, 48)
        fitted = fit_guide(truth, hole, wrong, probes)
        assert max(fitted.trust, *fitted.trusts[:-1]) < 0.2
        trusts_of_wrong.append(fitted.trusts[-1])
        right = fit_guide(truth, hole, resize(truth, 48, 48), probes)
        assert min(right.trust, *right.trusts) > 0.7
        if seed < 6:
            alone, followed = fill_hole(truth, hole), fill_hole(truth, hole, wrong, probes)
            assert error(followed, truth, hole) < 1.1 * error(alone, truth, hole)
    assert np.mean(trusts_of_wrong) < 0.2


def test_a_guide_may_be_less_exact_than_smoothness():
    """A probe lies in a calm place, where smoothness is better than any guide of the right light and dark."""
    truth = np.tile(np.linspace(40, 220, 96, dtype=np.uint8)[:, None, None], (1, 96, 3))
    hole = disc(96, 96, 40, 44, 12)
    probes = probes_for(hole)
    guide = resize(truth + 8.0 * (hole | probes)[..., None], 48, 48)
    assert fit_guide(truth, hole, guide, probes).trusts[-1] > 0.8


@given(st.integers(0, 99), st.integers(20, 80), st.integers(20, 80), st.floats(0, 0.9))
def test_probes_are_known_and_away_from_hole_and_border(seed, height, width, share):
    rng = np.random.default_rng(seed)
    hole = ndimage.zoom(rng.random((5, 5)), (height / 5, width / 5), order=0) < share
    probes = probes_for(hole)
    assert not (probes & hole).any()
    if probes.any():
        assert distance(np.pad(~hole, 1))[1:-1, 1:-1][probes].min() >= 4


def test_only_the_coarse_bands_of_a_blurred_guide_are_trusted():
    truth = noisy(np.random.default_rng(2), 64, 64)
    guide = ndimage.gaussian_filter(resize(truth, 32, 32), (2.5, 2.5, 0))
    trusts = fit_guide(truth, disc(64, 64, 30, 30, 10), guide).trusts
    assert trusts == sorted(trusts)
    assert trusts[0] < 0.4
    assert trusts[-1] > 0.9


@few
@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_bands_add_up(seed, height, width):
    image = np.random.default_rng(seed).normal(0, 50, (height, width, 3)).astype(np.float32)
    np.testing.assert_allclose(sum(bands(image)), image, atol=1e-3)
