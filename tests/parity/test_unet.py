"""FlaxUNet against diffusers' UNet2DConditionModel, and against that network with Algorithm 1 added to its blocks."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from elements_jax.checkpoints import torch_names
from elements_jax.config import UNetConfig
from elements_jax.models.functional import Functional
from elements_jax.models.unet import FlaxUNet
from tests.helpers.algorithm_1 import add_element_attention, diffusers_unet, torch_predict

TEXT_CHANNELS, ELEMENT_CHANNELS = 24, 20
TINY = UNetConfig(
    block_out_channels=(32, 64), attention_levels=(True, True), layers_per_block=1, heads=4, norm_groups=16
)
SMALL = UNetConfig(
    block_out_channels=(8,),
    attention_levels=(True,),
    layers_per_block=1,
    heads=2,
    norm_groups=2,
    zero_init_elements=True,
)
AS_SD15 = UNetConfig(block_out_channels=(32, 64, 64, 64), heads=8, norm_groups=8)  # its levels, layers and order


@functools.cache
def our_unet(config: UNetConfig, dtype=jnp.float32) -> Functional[FlaxUNet]:
    return Functional(lambda rngs: FlaxUNet(config, 4, TEXT_CHANNELS, ELEMENT_CHANNELS, dtype, rngs=rngs))


def predict(unet: Functional[FlaxUNet], params, inputs, text: bool = True, elements: bool = True):
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # to run once
    def run(params, inputs):
        module = unet.module(params)
        context = module.context(inputs["text"] if text else None, inputs["elements"] if elements else None)
        return module(inputs["latent"], inputs["timestep"], context)

    return run(params, inputs)


def random_params(unet: Functional[FlaxUNet]) -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    return {
        name: jnp.float32(rng.normal(size=spec.shape) / max(1, math.prod(spec.shape[:-1])) ** 0.5)
        for name, spec in unet.shapes().items()
    }


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    elements = rng.normal(size=(2, 9, ELEMENT_CHANNELS)).astype(np.float32)
    elements[0, 4:] = 0  # deleted elements: zero tokens, which take part in the softmax
    return {
        "latent": rng.normal(size=(2, 16, 8, 4)).astype(np.float32),
        "timestep": np.array([3, 981], np.int32),
        "text": rng.normal(size=(2, 7, TEXT_CHANNELS)).astype(np.float32),
        "elements": elements,
    }


@pytest.mark.parametrize("config", [TINY, AS_SD15], ids=["tiny", "as SD 1.5"])
def test_without_elements_equals_diffusers(config, inputs, randomise, tensors_of, assert_same):
    theirs, ours = randomise(diffusers_unet(config, TEXT_CHANNELS)), our_unet(config)
    last = theirs.up_blocks[-1]
    with torch.no_grad():  # what enters the last norm is small, so that its epsilon matters
        for layer in (last.resnets[-1].conv2, last.resnets[-1].conv_shortcut, last.attentions[-1].proj_out):
            layer.weight *= 0.003
            layer.bias *= 0.003
    base = torch_names.from_torch(torch_names.UNET, tensors_of(theirs), ours.shapes())
    unused = {name: np.full(spec.shape, np.nan, np.float32) for name, spec in ours.shapes().items() if name not in base}
    params = unused | base
    assert_same(predict(ours, params, inputs, elements=False), torch_predict(theirs, inputs))


@pytest.mark.parametrize(
    ("config", "text", "elements"),
    [(TINY, True, True), (TINY, False, True), (TINY, False, False), (AS_SD15, True, True)],
    ids=["text and elements", "elements alone", "neither", "as SD 1.5"],
)
def test_algorithm_1_equals_pytorch(config, text, elements, inputs, randomise, tensors_of, assert_same):
    theirs, ours = diffusers_unet(config, TEXT_CHANNELS), our_unet(config)
    add_element_attention(theirs, ELEMENT_CHANNELS, torch.from_numpy(inputs["elements"]) if elements else None)
    randomise(theirs)
    params = torch_names.from_torch(torch_names.UNET, tensors_of(theirs), ours.shapes())
    assert_same(predict(ours, params, inputs, text, elements), torch_predict(theirs, inputs, text))


def test_context_is_made_once_for_all_timesteps(inputs):
    """It holds keys and values of each block, of text and of elements; those of a zero token are exactly zero."""
    unet = our_unet(TINY)
    module = unet.module(random_params(unet))
    context = module.context(jnp.asarray(inputs["text"]), jnp.asarray(inputs["elements"]))
    assert len(context) == 2 + 1 + 4  # layers_per_block per level down, one more per level up
    for block, width in zip(context, [32, 64, 64, 64, 64, 32, 32], strict=True):
        assert block.text.keys.shape == block.text.values.shape == (2, 7, 4, width // 4)
        assert block.elements.keys.shape == block.elements.values.shape == (2, 9, 4, width // 4)
        for projected in block.elements:
            assert not projected[0, 4:].any()
            assert projected[0, :4].any(-1).all()
            assert projected[1].any(-1).all()
    assert all(block == (None, None) for block in module.context(None, None))


def test_zero_init_starts_as_the_base_network(inputs):
    unet = our_unet(SMALL)
    params = unet.init(jax.random.key(1))
    alone = predict(unet, params, inputs, elements=False)
    np.testing.assert_array_equal(predict(unet, params, inputs), alone)
    np.testing.assert_array_equal(predict(unet, params, inputs | {"elements": 0 * inputs["elements"]}), alone)
    # Without the switch the new attention has an effect from the start.
    random = our_unet(dataclasses.replace(SMALL, zero_init_elements=False)).init(jax.random.key(1))
    assert np.abs(predict(unet, random, inputs) - alone).max() > 1e-2
    assert all(np.array_equal(random[name], params[name]) for name in params if "element_attention.to_out" not in name)


@pytest.mark.parametrize("remat", ["elementwise", "blocks"])
def test_rematerialisation_does_not_change_gradients(inputs, remat):
    unet = our_unet(SMALL)

    @functools.partial(jax.jit, static_argnums=1, compiler_options={"xla_backend_optimization_level": 0})
    @jax.grad
    def gradient(params, remat):
        module = unet.module(params)
        context = module.context(jnp.asarray(inputs["text"]), jnp.asarray(inputs["elements"]))
        return (module(jnp.asarray(inputs["latent"]), jnp.asarray(inputs["timestep"]), context, remat=remat) ** 2).sum()

    params = random_params(unet)
    kept, again = (gradient(params, remat) for remat in ("none", remat))
    assert all(np.asarray(value).any() for value in kept.values())
    for name in kept:
        scale = np.abs(kept[name]).max()
        np.testing.assert_allclose(again[name], kept[name], rtol=1e-4, atol=1e-5 * scale, err_msg=name)


def test_positions_enter_only_next_to_the_latent(inputs):
    plain, placed = our_unet(SMALL), our_unet(dataclasses.replace(SMALL, position_frequencies=2))
    params = random_params(placed)
    kernel = params["conv_in.kernel"]
    assert kernel.shape == (3, 3, 4 + 8, 8)  # sine and cosine of x and of y at two frequencies
    latent_alone = params | {"conv_in.kernel": kernel.at[:, :, 4:].set(0)}
    expected = predict(plain, params | {"conv_in.kernel": kernel[:, :, :4]}, inputs)
    np.testing.assert_allclose(predict(placed, latent_alone, inputs), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(predict(placed, params, inputs) - expected).max() > 1e-2


def test_bfloat16_changes_only_the_arithmetic(inputs):
    full, half = our_unet(TINY), our_unet(TINY, jnp.bfloat16)
    assert all(spec.dtype == jnp.float32 for spec in half.shapes().values())
    params = random_params(half)
    expected, noise = predict(full, params, inputs), predict(half, params, inputs)
    assert noise.dtype == jnp.float32
    error = np.linalg.norm(noise - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 3e-2  # bfloat16 keeps 8 bits, 4e-3


def test_a_latent_that_cannot_be_halved_is_refused(inputs):
    unet = our_unet(TINY)
    with pytest.raises(ValueError, match="multiples of 2, got"):
        predict(unet, unet.shapes(), inputs | {"latent": np.zeros((2, 16, 7, 4), np.float32)})
