"""Modules as pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from elements_jax.config import DecoderConfig, ElementsConfig, ModelConfig, TextConfig, UNetConfig, VAEConfig
from elements_jax.models.functional import Functional
from elements_jax.models.networks import Networks
from elements_jax.models.text_encoder import CLIPTextEncoder
from elements_jax.models.unet import FlaxUNet
from train.stages.discriminator import PatchDiscriminator

networks = Networks(
    ModelConfig(
        elements=ElementsConfig(image_size=16, grid=2, content_channels=8, frequencies=2),
        decoder=DecoderConfig(query_grid=4),
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
    exact = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}  # otherwise XLA skips casts
    forward = jax.jit(lambda params: run(network.module(params)), compiler_options=exact)
    np.testing.assert_array_equal(forward(cast), forward(params))


@pytest.mark.parametrize(
    "build",
    [
        lambda rngs: FlaxUNet(networks.config.unet, 4, 16, 24, jnp.float32, rngs=rngs),
        lambda rngs: CLIPTextEncoder(networks.config.text, jnp.float32, rngs=rngs),
        lambda rngs: PatchDiscriminator(8, 1, jnp.float32, rngs=rngs),
    ],
)
def test_fresh_parameters_are_distributed_as_flax_draws_them(build):
    ours = Functional(build).init(jax.random.key(0))
    theirs = nnx.to_flat_state(nnx.state(build(nnx.Rngs(0)), nnx.Param))
    assert len(theirs) == len(ours)
    for path, param in theirs:
        value, truth = np.asarray(ours[".".join(map(str, path))]), np.asarray(param[...])
        assert (value.shape, value.dtype) == (truth.shape, truth.dtype)
        if truth.std() == 0:
            np.testing.assert_array_equal(value, truth)
            continue
        np.testing.assert_allclose(value.std(), truth.std(), rtol=6 / np.sqrt(value.size))
        assert abs(value.mean()) < 6 * truth.std() / np.sqrt(value.size)
        if path[-1] == "kernel" and "conv_in" in path and value.shape[:2] == (3, 3):  # cut at two standard deviations
            bound = 2 / 0.8796 / np.sqrt(np.prod(truth.shape[:-1]))
            assert 0.8 * bound < np.abs(value).max() < 1.001 * bound


def test_a_random_parameter_depends_only_on_key_and_name():
    unet = networks.unet
    every = unet.init(jax.random.key(1))
    name = "conv_in.kernel"
    known = {other: value for other, value in every.items() if other != name}
    np.testing.assert_array_equal(unet.init_missing(known, jax.random.key(1))[name], every[name])
    assert np.abs(unet.init_missing(known, jax.random.key(2))[name] - every[name]).max() > 0.1
    kernels = [value for other, value in every.items() if other.endswith("conv1.kernel") and value.shape[2] == 16]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
