"""The feather and the latent's cells, against their definitions in pixels."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from elements_jax.diffusion.preserve import blend, feather, latent_cells

quick = settings(max_examples=25, deadline=None)
H, W = 20, 24


def within(region: np.ndarray, distance: int) -> np.ndarray:
    """Return the pixels within a number of rows and columns of the region: a dilation, pixel by pixel."""
    ys, xs = np.nonzero(region)
    y, x = np.mgrid[: region.shape[0], : region.shape[1]]
    return ((abs(y[..., None] - ys) <= distance) & (abs(x[..., None] - xs) <= distance)).any(axis=-1)


@quick
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.002, 0.01, 0.1, 1.0]), st.sampled_from([1, 2, 5]))
def test_the_feather_is_one_inside_zero_far_off_and_has_no_step(seed, share, radius):
    region = np.random.default_rng(seed).random((H, W)) < share
    weight = np.asarray(jax.jit(feather, static_argnums=1)(jnp.asarray(region)[None], radius))[0]
    assert (weight[within(region, radius)] == 1).all()
    np.testing.assert_array_equal(weight > 0, within(region, 3 * radius))
    for axis in (0, 1):
        assert np.abs(np.diff(weight, axis=axis)).max() <= 1 / (2 * radius + 1) + 1e-6


def test_repaints_specks_in_the_region_but_not_a_large_hole():
    region = np.ones((1, 20, 20), bool)
    region[0, 2:6, 2:6] = region[0, 8:18, 8:18] = False
    weight = np.asarray(feather(jnp.asarray(region), 1))[0]
    assert (weight[:8, :8] == 1).all()
    assert (weight[11:15, 11:15] == 0).all()


def test_a_cell_is_repainted_when_any_of_its_pixels_is():
    region = np.zeros((2, 8, 8), bool)
    region[0, 3, 4] = region[1, 7, 7] = True
    cells = np.asarray(latent_cells(jnp.asarray(region), 4))
    np.testing.assert_array_equal(np.argwhere(cells), [[0, 0, 1], [1, 1, 1]])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_blend_of_weight_0_or_1_is_exact(value):
    a, b = np.random.default_rng(0).normal(size=(2, 1, 4, 4, 3)).astype(np.float32)
    mixed = blend(jnp.asarray(a), jnp.asarray(b), jnp.full((1, 4, 4), value))
    np.testing.assert_array_equal(mixed, b if value else a)
