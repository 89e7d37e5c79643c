"""Stable Diffusion 1.5 in elements-jax, for `stable_diffusion.py` to time."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from elements_jax.checkpoints import torch_names
from elements_jax.config import ModelConfig
from elements_jax.diffusion.samplers import ddim_sample
from elements_jax.diffusion.schedule import make_schedule, with_guidance
from elements_jax.models.functional import Functional, Params
from elements_jax.models.networks import Networks
from elements_jax.parallel.xla_flags import prefer_own_convolutions

prefer_own_convolutions()  # as the commands do

CONFIG = ModelConfig()
NETWORKS = Networks(CONFIG)
STEPS = 10


def unet(elements: bool) -> Callable[[], object]:
    """Predict the noise in a batch of two; this includes projecting the conditions, as in the other candidates."""

    @jax.jit
    def forward(params, latent, timestep, *conditions):
        module = NETWORKS.unet.module(params)
        return module(latent, timestep, module.context(*conditions))

    return _timed(forward, weights(NETWORKS.unet), latents(2), jnp.full(2, 500), *conditions(2, elements))


def train(elements: bool) -> Callable[[], object]:
    """Compute the loss of one example and its gradient by every used parameter; no optimiser, no checkpointing."""
    params = weights(NETWORKS.unet)
    unused = (
        {}
        if elements
        else {name: params[name] for name in params if re.search(torch_names.UNET.extra_parameters, name)}
    )
    used = {name: value for name, value in params.items() if name not in unused}

    @jax.jit
    @jax.value_and_grad
    def gradient(used, unused, latent, timestep, noise, *conditions):
        module = NETWORKS.unet.module(used | unused)
        return jnp.mean((module(latent, timestep, module.context(*conditions)) - noise) ** 2)

    return _timed(gradient, used, unused, latents(1), jnp.full(1, 500), latents(1), *conditions(1, elements))


def sample(elements: bool) -> Callable[[], object]:
    """Sample a latent from noise under guidance."""

    @jax.jit
    def decode(params, noise, *conditions):
        module = NETWORKS.unet.module(params)
        context = module.context(*conditions)
        predict = with_guidance(lambda latent, timestep: module(latent, timestep, context), jnp.float32([3]))
        return ddim_sample(predict, make_schedule(CONFIG.diffusion), noise, STEPS)

    return _timed(decode, weights(NETWORKS.unet), latents(1), *conditions(2, elements))


def vae() -> Callable[[], object]:
    """Decode a latent to an image."""
    decode = jax.jit(lambda params, latent: NETWORKS.vae.module(params).decode(latent))
    return _timed(decode, weights(NETWORKS.vae), latents(1))


def text() -> Callable[[], object]:
    """Compute the features of two prompts."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(CONFIG.text.vocab_size, size=(2, CONFIG.text.max_length)))
    return _timed(jax.jit(NETWORKS.text_encoder), weights(NETWORKS.text_encoder), tokens)


CASES = {
    "unet": lambda: unet(elements=False),
    "unet+elements": lambda: unet(elements=True),
    "train": lambda: train(elements=False),
    "train+elements": lambda: train(elements=True),
    "sample": lambda: sample(elements=False),
    "sample+elements": lambda: sample(elements=True),
    "vae": vae,
    "text": text,
}


def weights(network: Functional) -> Params:
    """Return random weights small enough to keep the features finite."""
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        return rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[:-1]), dtype=np.float32)

    return {name: jnp.asarray(draw(spec.shape)) for name, spec in network.shapes().items()}


def latents(batch: int) -> jax.Array:
    """Return noise of a latent's size."""
    return jax.random.normal(jax.random.key(0), (batch, CONFIG.latent_size, CONFIG.latent_size, 4))


def conditions(batch: int, elements: bool) -> tuple[jax.Array, jax.Array | None]:
    """Return features of prompts, with or without element tokens."""
    text = jax.random.normal(jax.random.key(1), (batch, CONFIG.text.max_length, CONFIG.text.hidden_size))
    size = (batch, CONFIG.elements.num_elements, CONFIG.elements.token_channels)
    return text, jax.random.normal(jax.random.key(2), size) if elements else None


def _timed(function: Callable, *arguments) -> Callable[[], object]:
    return lambda: jax.block_until_ready(function(*arguments))
