"""Samplers: from pure noise z_T to a clean latent, given a function that predicts the noise in a latent.

Each goes over `steps` (static) falling timesteps in SD's "leading" spacing with offset 1. Notation:
alpha_t = sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t), so that z_t = alpha_t z_0 + sigma_t eps (Equation 3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from elements_jax.diffusion.schedule import PredictNoise, Schedule

State = tuple[Any, ...]
"""What a step hands to the next: the latent (B, h, w, Z) first; every array has the batch's axis first."""
Point = tuple[Any, ...]
"""A step's timestep and coefficients; of all steps, with an axis of steps first."""


@dataclass(frozen=True)
class Sampler:
    """A sampler: called, it is one loop inside jit. Its parts let the host go step by step."""

    start: Callable[..., tuple[State, Point]]
    """(schedule, noise, steps, **options) -> the first state, and the points of all steps."""
    step: Callable[[PredictNoise, State, Point], State]

    def __call__(
        self,
        predict_noise: PredictNoise,
        schedule: Schedule,
        noise: Float[Array, "B h w Z"],
        steps: int,
        **options: Any,
    ) -> Float[Array, "B h w Z"]:
        """The clean latent. Raises ValueError as `sample_timesteps`."""
        state, points = self.start(schedule, noise, steps, **options)
        return lax.scan(lambda state, at: (self.step(predict_noise, state, at), None), state, points)[0][0]


def sample_timesteps(train_timesteps: int, steps: int, left_out: int = 0) -> Int[Array, " steps"]:
    """SD's "leading" spacing with offset 1, falling: for 1000 timesteps and 50 steps 981, 961, ..., 1.

    `left_out` of the evenly spaced timesteps come on top and are left out at the end. Raises ValueError for no steps or
    too many.
    """
    if not 1 <= steps < train_timesteps - left_out:
        raise ValueError(f"expected from 1 to {train_timesteps - left_out - 1} sampling steps, got {steps}")
    return jnp.arange(left_out, steps + left_out)[::-1] * (train_timesteps // (steps + left_out)) + 1


def _ddim(
    schedule: Schedule,
    noise: Float[Array, "B h w Z"],
    steps: int,
    *,
    skipped: int = 0,
    eta: Float[Array, ""] | float = 0.0,
    keys: Key[Array, " B"] | None = None,
) -> tuple[State, Point]:
    timesteps = sample_timesteps(schedule.alpha_bar.shape[0], steps)[skipped:]
    return _first_order_points(schedule, noise, timesteps, schedule.alpha_bar[0], eta, keys)


def _euler(schedule: Schedule, noise: Float[Array, "B h w Z"], steps: int) -> tuple[State, Point]:
    timesteps = sample_timesteps(schedule.alpha_bar.shape[0], steps)
    return _first_order_points(schedule, noise, timesteps, jnp.float32(1))


def _first_order_points(
    schedule: Schedule,
    noise: Float[Array, "B h w Z"],
    timesteps: Int[Array, " steps"],
    last: Float[Array, ""],
    eta: Float[Array, ""] | float = 0.0,
    keys: Key[Array, " B"] | None = None,
) -> tuple[State, Point]:
    """`last` is alpha_bar at the end."""
    alpha_bar = jnp.append(schedule.alpha_bar[timesteps], last)
    return (noise, keys), (timesteps, alpha_bar[:-1], alpha_bar[1:], jnp.full(len(timesteps), eta, jnp.float32))


def _first_order(predict_noise: PredictNoise, state: State, at: Point) -> State:
    """z_0 = (z_t - sigma_t eps) / alpha_t, then Equation 3 at the next timestep with the same eps, in part renewed."""
    (latent, keys), (timestep, alpha_bar, after, eta) = state, at
    predicted = predict_noise(latent, jnp.full(latent.shape[0], timestep))
    clean = (latent - jnp.sqrt(1 - alpha_bar) * predicted) / jnp.sqrt(alpha_bar)
    if keys is None:
        return jnp.sqrt(after) * clean + jnp.sqrt(1 - after) * predicted, keys
    variance = eta**2 * (1 - after) / (1 - alpha_bar) * (1 - alpha_bar / after)
    own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, timestep)
    fresh = jax.vmap(lambda key: jax.random.normal(key, latent.shape[1:], latent.dtype))(own)
    old = jnp.sqrt(1 - after - variance) * predicted
    return jnp.sqrt(after) * clean + old + jnp.sqrt(variance) * fresh, keys


def _dpm_solver(schedule: Schedule, noise: Float[Array, "B h w Z"], steps: int) -> tuple[State, Point]:
    timesteps = sample_timesteps(schedule.alpha_bar.shape[0], steps, left_out=1)  # the end itself
    alpha_bar = jnp.append(schedule.alpha_bar[timesteps], 1.0)
    alpha, sigma = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
    half_log_snr = jnp.log(alpha[:-1] / sigma[:-1])  # lambda of the paper; at the end it is infinite
    h = jnp.diff(half_log_snr)
    slope = jnp.zeros(steps).at[1:-1].set(h[1:] / (2 * h[:-1]))
    keep = sigma[1:] / sigma[:-1]
    gain = alpha[1:] - alpha[:-1] * keep  # alpha_t (1 - exp(-h))
    return (noise, jnp.zeros_like(noise)), (timesteps, alpha[:-1], sigma[:-1], keep, gain, slope)


def _second_order(predict_noise: PredictNoise, state: State, at: Point) -> State:
    """From this step's z_0 and the one before; the first step and the last are of first order."""
    (latent, clean_before), (timestep, alpha, sigma, keep, gain, slope) = state, at
    predicted = predict_noise(latent, jnp.full(latent.shape[0], timestep))
    clean = (latent - sigma * predicted) / alpha
    return keep * latent + gain * (clean + slope * (clean - clean_before)), clean


ddim_sample = Sampler(_ddim, _first_order)
"""DDIM (Song et al. 2021, Equation 12), the paper's sampler; it ends at timestep 0, as SD's does.

Options: the first `skipped` steps are left out, and `noise` is then a latent with the noise of the timestep after them.
`eta` weighs the fresh noise of each step, drawn from `keys`: 1 is DDPM's; without keys there is none.
"""

euler_sample = Sampler(_euler, _first_order)
"""Euler's method on d(z / alpha) / d(sigma / alpha) = eps (Karras et al. 2022), down to sigma = 0.

Its steps are DDIM's, written in other variables; the two differ in where they end.
"""

dpm_solver_sample = Sampler(_dpm_solver, _second_order)
"""DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), down to sigma = 0; its authors find 15 to 20 steps enough."""

SAMPLERS: dict[str, Sampler] = {"ddim": ddim_sample, "euler": euler_sample, "dpm": dpm_solver_sample}
