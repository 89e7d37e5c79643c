"""Modules as pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.config import ElementsConfig, ModelConfig, TextConfig, UNetConfig, VAEConfig
from elements_jax.networks import Networks

networks = Networks(
    ModelConfig(
        elements=ElementsConfig(image_size=16, grid=2, content_channels=8, frequencies=2),
        vae=VAEConfig(block_out_channels=(8,), layers_per_block=1, norm_groups=4),
        text=TextConfig(vocab_size=32, max_length=6, hidden_size=16, intermediate_size=32, layers=1, heads=2),
        unet=UNetConfig(block_out_channels=(16,), attention_levels=(True,), layers_per_block=1, heads=2, norm_groups=4),
        dtype="bfloat16",
    )
)


def unet(module):
    sizes = (8, 8, 4), (6, 16), (4, 24)
    latent, text, tokens = (jax.random.normal(jax.random.key(2), (1, *size)) for size in sizes)
    return module(latent, jnp.full(1, 500), module.context(text, tokens))


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("unet", unet),
        ("vae", lambda module: module.encode(jax.random.normal(jax.random.key(1), (1, 16, 16, 3)))[0]),
        ("text_encoder", lambda module: module(jnp.arange(6)[None])),
    ],
)
def test_parameters_that_are_cast_beforehand_change_no_bit(name, run):
    network = getattr(networks, name)
    params = network.init(jax.random.key(0))
    cast = network.cast(params)
    assert {value.dtype.name for value in cast.values()} == {"float32", "bfloat16"}
    exact = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}  # else XLA leaves casts out
    forward = jax.jit(lambda params: run(network.module(params)), compiler_options=exact)
    np.testing.assert_array_equal(forward(cast), forward(params))
