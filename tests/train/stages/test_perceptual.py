"""LPIPS as a loss, on complete images and on random squares of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.stages.perceptual import PerceptualLoss, random_crops


def keys(seed: int, count: int = 3):
    return jax.random.split(jax.random.key(seed), count)


def test_crops_are_the_same_square_of_every_image():
    image = np.random.default_rng(0).uniform(size=(3, 12, 20, 3)).astype(np.float32)
    corners = set()
    for seed in range(20):
        one, other = (
            np.asarray(crop) for crop in random_crops(keys(seed), 5, jnp.asarray(image), 2 * jnp.asarray(image))
        )
        np.testing.assert_array_equal(other, 2 * one)
        for example, crop in zip(image, one, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(example, (5, 5), (0, 1)).transpose(0, 1, 3, 4, 2)
            [corner] = np.argwhere((windows == crop).all((2, 3, 4)))
            corners.add(tuple(corner))
    assert len(corners) > 40  # in 60 draws from 8 x 16 places


def test_a_crop_of_the_whole_image_is_the_image():
    image = jnp.arange(2 * 4 * 4 * 3, dtype=jnp.float32).reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(random_crops(keys(0, 2), 4, image)[0], image)


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="64 x 64 px does not fit into images of 32 x 48 px"):
        random_crops(keys(0), 64, jnp.zeros((3, 32, 48, 3)))


def test_the_loss_is_the_weighted_distance_of_images_in_0_to_1():
    def network(params, image, truth):
        return params["scale"] * jnp.abs(image - truth).mean((1, 2, 3))

    rng = np.random.default_rng(1)
    made, image = (jnp.asarray(rng.uniform(-1, 1, (3, 8, 8, 3)), jnp.float32) for _ in range(2))
    params = {"scale": jnp.float32(3)}
    for crop in (None, 4):
        loss = PerceptualLoss(network, weight=0.5, crop=crop)(params, made, image, keys(0))
        compared = random_crops(keys(0), crop, made, image) if crop else (made, image)
        expected = 0.5 * 3 * np.abs(compared[0] - compared[1]).mean((1, 2, 3)) / 2
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
