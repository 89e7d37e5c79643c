"""The pyramid of a photograph with a hole."""

from itertools import pairwise

import numpy as np

from elements_jax.fill.pyramid import padded, pyramid
from tests.helpers.holes import disc, noisy


def test_lengths_of_programs():
    assert [padded(n) for n in (1, 32, 33, 64, 65, 96, 97, 128, 129, 512, 513, 768, 769)] == [
        32, 32, 48, 64, 96, 96, 128, 128, 192, 512, 768, 768, 1024,
    ]  # fmt: skip


def test_a_coarse_pixel_is_known_if_all_pixels_it_covers_are():
    image = noisy(np.random.default_rng(0), 60, 64).astype(np.float32)
    known = ~disc(60, 64, 31, 31, 14)
    levels = pyramid(image, known, image, image, image)
    assert len(levels) > 1
    for fine, coarse in pairwise(levels):
        for y in range(coarse.known.shape[0]):
            for x in range(coarse.known.shape[1]):
                cell = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                assert coarse.known[y, x] == fine.known[cell].all()
                if coarse.known[y, x]:
                    np.testing.assert_allclose(coarse.image[y, x], fine.image[cell].mean((0, 1)), atol=1e-3)
