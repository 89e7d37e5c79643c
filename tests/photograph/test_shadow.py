"""Shadows that move with their object."""

import numpy as np
import pytest
from scipy import ndimage

from elements_jax.photograph.shadow import cast_shadow

SIZE = 240
Y, X = np.mgrid[:SIZE, :SIZE]
OBJECT = np.hypot(Y - 110, X - 100) < 40
BEHIND = np.hypot(Y - 120, X - 112) < 42


def wall(seed: int = 0) -> np.ndarray:
    """Return a wall in a gradient of light, with a little grain."""
    grain = np.random.default_rng(seed).normal(0, 2, (SIZE, SIZE, 1))
    return (110 + 0.3 * X + 0.1 * Y)[..., None] * [1.0, 0.95, 0.85] + grain


def photograph(pixels: np.ndarray) -> np.ndarray:
    pixels[OBJECT] = (200, 30, 40)
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 3])
def test_a_soft_shadow_is_found(scale):
    light = 1 - 0.4 * ndimage.gaussian_filter(BEHIND.astype(float), 4)
    pixels = photograph(wall() * light[..., None])
    large = [np.repeat(np.repeat(array, scale, 0), scale, 1) for array in (pixels, OBJECT, light)]
    shadow = cast_shadow(large[0], large[1])
    visible = (large[2] < 0.92) & ~large[1]
    assert (shadow & visible).sum() > 0.9 * visible.sum()
    assert (shadow & (large[2] > 0.995)).sum() < 0.35 * visible.sum()
    assert not (shadow & large[1]).any()


def test_finds_no_shadow_without_one():
    assert not cast_shadow(photograph(wall()), OBJECT).any()


def test_another_object_is_not_a_shadow():
    """It is darker and has the wall's hue, but also an edge."""
    pixels = wall()
    pixels[(abs(Y - 110) < 30) & (X >= 130) & (X < 190)] *= 0.5
    assert not cast_shadow(photograph(pixels), OBJECT).any()


def test_texture_is_not_a_shadow():
    rng = np.random.default_rng(1)
    stones = ndimage.gaussian_filter(rng.normal(0, 1, (SIZE, SIZE)), 5)
    pixels = wall() * (1 + 0.35 * stones / stones.std())[..., None]
    assert cast_shadow(photograph(pixels), OBJECT).sum() < 0.05 * OBJECT.sum()


@pytest.mark.parametrize("mask", [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.eye(7, dtype=bool)[:5]])
def test_tiny_and_extreme_masks(mask):
    assert not cast_shadow(np.full((5, 7, 3), 90, np.uint8), mask).any()
