"""The last Flax UNet of Stable Diffusion in diffusers, from version 0.39.0, for `stable_diffusion.py` to time.

It is imported from a separate folder, since the environment has a later diffusers. XLA has its default settings.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / ".venv" / "diffusers-0.39"))
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # otherwise it warns for every class that it is deprecated

import diffusers
import jax
import jax.numpy as jnp
import numpy as np

assert diffusers.__version__ == "0.39.0", "`make .venv/diffusers-0.39` installs it"


def unet() -> Callable[[], object]:
    """Predict the noise in a batch of two."""
    module, params = load_unet()
    forward = jax.jit(lambda params, *inputs: module.apply({"params": params}, *inputs).sample)
    return _timed(forward, params, latents(2), jnp.full(2, 500), text(2))


def train() -> Callable[[], object]:
    """Compute the loss of one example and its gradient by every parameter; no optimiser, no checkpointing."""
    module, params = load_unet()

    @jax.jit
    @jax.value_and_grad
    def gradient(params, noise, *inputs):
        return jnp.mean((module.apply({"params": params}, *inputs).sample - noise) ** 2)

    return _timed(gradient, params, latents(1), latents(1), jnp.full(1, 500), text(1))


CASES = {"unet": unet, "train": train}


def load_unet():
    """Return the module, and random weights small enough to keep the features finite."""
    module = diffusers.FlaxUNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    rng = np.random.default_rng(0)

    def draw(spec: jax.ShapeDtypeStruct) -> jax.Array:
        if len(spec.shape) == 1:
            return jnp.ones(spec.shape)
        return jnp.asarray(rng.standard_normal(spec.shape, np.float32) / np.sqrt(np.prod(spec.shape[:-1]), dtype="f4"))

    return module, jax.tree.map(draw, jax.eval_shape(module.init_weights, jax.random.key(0)))


def latents(batch: int) -> jax.Array:
    """Return noise of a latent's size."""
    return jax.random.normal(jax.random.key(0), (batch, 4, 64, 64))


def text(batch: int) -> jax.Array:
    """Return features of prompts."""
    return jax.random.normal(jax.random.key(1), (batch, 77, 768))


def _timed(function: Callable, *arguments) -> Callable[[], object]:
    return lambda: jax.block_until_ready(function(*arguments))
