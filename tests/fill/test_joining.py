"""Joining pieces of the photograph in a hole by their gradients."""

import numpy as np
from hypothesis import given

from elements_jax.fill.joining import SEAM, blended, steps_between
from elements_jax.fill.pyramid import Level, pyramid
from tests.helpers.holes import disc, few, seeds


def test_light_at_the_rim_spreads_into_the_hole():
    voted, known = np.full((64, 64, 3), 40, np.float32), ~disc(64, 64, 32, 32, 20)
    lit = np.repeat(np.where(known[..., None], 46, 0), 3, axis=2).astype(np.float32)
    level, alone = pyramid(lit, known, lit, *(np.zeros_like(voted),) * 2)[0], np.arange(64 * 64, dtype=np.int32)
    np.testing.assert_allclose(blended(level, voted, alone)[~known], 46, atol=0.6)
    roof = lit.copy()
    roof[52:] = 220
    roof[~known] = 0
    level = pyramid(roof, known, roof, *(np.zeros_like(voted),) * 2)[0]
    filled = blended(level, voted, alone)
    assert (filled[50, 32] > 120).all()  # it fades in
    assert np.abs(filled[16:40, 32] - 46).max() < 6


def test_pieces_of_different_light_are_joined():
    """A hole over the full height shows 100 in one half and 112 in the other: the result is a ramp between both."""
    known = np.ones((32, 64), bool)
    known[:, 24:40] = False
    dark, light = np.full((2, 32, 64, 3), [[[[100.0]]], [[[112.0]]]], np.float32)
    image = np.where(np.arange(64)[:, None] < 32, dark, light)
    level = pyramid(image * known[..., None], known, image, *(np.zeros_like(image),) * 2)[0]
    x = np.arange(64)
    origin = np.arange(32)[:, None] * 64 + np.select([known[0], x < 32], [x, x - 18], x + 18)
    ramp = np.interp(x, [23, 40], [100, 112])
    joined = blended(level, image, origin.ravel().astype(np.int32))
    np.testing.assert_allclose(joined[:, 24:40], np.broadcast_to(ramp[:, None], (32, 64, 3))[:, 24:40], atol=0.5)


def test_joining_pieces_does_not_add_up_to_other_colours():
    """The hole repeats one ramp; each piece begins 14 below the end of the one before, so joining climbs."""
    known = np.zeros((32, 128), bool)
    known[:, :24] = True
    x = np.arange(128)
    origin = (np.arange(32)[:, None] * 128 + np.where(x < 24, x, 8 + x % 8)).astype(np.int32)
    image = np.repeat(np.where(x < 24, 100 + 2 * x, 0)[:, None], 3, 1) * np.ones((32, 1, 1), np.float32)
    voted = image[:, origin[0]]
    level = pyramid(image.astype(np.float32), known, voted, *(np.zeros_like(voted),) * 2)[0]
    changed = blended(level, voted, origin.ravel()) - voted
    assert np.abs(changed[:, 120]).max() > 20
    assert np.abs(changed).max() <= SEAM


@few
@given(seeds)
def test_steps_between_pieces_are_those_at_both_pixels(seed):
    """Against loops over pairs of pixels; each piece is compared with the other where both show known pixels."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (8, 9, 3)).astype(np.float32)
    known = rng.random((8, 9)) < 0.8
    sources = np.flatnonzero(known)
    starts = rng.choice(sources, (8, 9)).astype(np.int32)
    level = Level(image, np.ones_like(known), known, image, image, image)
    expected = np.zeros((2, 8, 9, 3))
    for y, x in np.ndindex(8, 9):
        for dy, dx in ((1, 0), (0, 1)):
            if y + dy == 8 or x + dx == 9:
                continue
            (py, px), (qy, qx) = divmod(int(starts[y, x]), 9), divmod(int(starts[y + dy, x + dx]), 9)
            ahead, behind = (py + dy, px + dx), (qy - dy, qx - dx)
            if ahead[0] == 8 or ahead[1] == 9 or min(behind) < 0 or not (known[ahead] and known[behind]):
                continue
            step = (image[py, px] - image[behind] + image[ahead] - image[qy, qx]) / 2
            step /= 1 + (np.mean(step**2) / SEAM**2) ** 2
            expected[dx, y, x] = step
    steps = steps_between(level, starts.ravel(), np.s_[2:, 1:])
    np.testing.assert_allclose(steps, expected[:, 2:, 1:], atol=1e-3)
