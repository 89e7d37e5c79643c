"""Draws do not depend on JAX's default types: JAX_ENABLE_X64 changes no image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import DiffusionTrainConfig
from train.stage import normal
from train.stages.conditioning import condition_dropout, dropped_elements
from train.stages.perceptual import random_crops

TRAIN = DiffusionTrainConfig(steps=1, batch_size=2, learning_rate=1.0)


def keys():
    return jax.random.split(jax.random.key(3), 64)


DRAWS = {
    "normal": lambda: normal(keys(), (5,)),
    "condition dropout": lambda: np.stack(condition_dropout(keys(), TRAIN)),
    "element dropout": lambda: dropped_elements(
        jnp.zeros((64, 2, 2), jnp.int32), jnp.ones((64, 2, 2), bool), keys(), probability=0.5, num_elements=3
    ),
    "crops": lambda: np.asarray(
        random_crops(keys(), 3, jnp.arange(64 * 81 * 3, dtype=jnp.float32).reshape(64, 9, 9, 3))[0]
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_same_with_64_bits(name):
    expected = np.asarray(DRAWS[name]())
    with jax.enable_x64(True):
        found = np.asarray(DRAWS[name]())
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
