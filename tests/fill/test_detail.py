"""Detail of holes that were filled at a lower resolution."""

import numpy as np
from hypothesis import given
from PIL import Image

from elements_jax.fill.detail import reduced, with_detail
from tests.helpers.holes import disc, few, seeds


@few
@given(seeds)
def test_detail_is_what_the_fill_lacks_where_it_comes_from(seed):
    """Against a loop over pixels, at a factor of 2.5."""
    rng = np.random.default_rng(seed)
    photograph = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    hole, small = disc(40, 50, 20, 25, 8), rng.integers(0, 256, (16, 20, 3)).astype(np.uint8)
    origin = rng.integers(0, 16 * 20, (16, 20))
    enlarged = np.asarray(Image.fromarray(small).resize((50, 40), Image.Resampling.LANCZOS))
    expected = photograph.copy()
    for y, x in np.argwhere(hole):
        at = int(y / 2.5), int(x / 2.5)
        shift = np.subtract(divmod(int(origin[at]), 20), at) * 2.5
        there = np.clip((y + np.rint(shift[0]), x + np.rint(shift[1])), 0, (39, 49)).astype(int)
        detail = 0 if hole[tuple(there)] else photograph[tuple(there)].astype(int) - enlarged[tuple(there)]
        expected[y, x] = np.clip(enlarged[y, x] + detail, 0, 255)
    np.testing.assert_array_equal(with_detail(photograph, hole, small, origin), expected)


def test_a_copy_of_the_photograph_has_all_of_its_detail():
    """The small fill comes from 30 px to the left, 12 px there: so does the result, grain and all."""
    rng = np.random.default_rng(0)
    half = rng.integers(60, 200, (60, 30, 3)).astype(np.uint8)
    photograph = np.concatenate([half] * 3, 1)
    small, hole = reduced(photograph, 36), disc(60, 90, 30, 45, 10)
    origin = np.arange(24 * 36).reshape(24, 36) - 12
    filled = with_detail(photograph, hole, small, origin)
    assert np.abs(filled.astype(int) - photograph).max() <= 30  # enlarging knows no period at the border
    assert np.abs(filled.astype(int) - photograph).mean() < 1
    assert reduced(photograph, 36).shape == (24, 36, 3)
