"""Samplers: from pure noise z_T to a clean latent, given a function that predicts the noise in a latent.

Each runs over `steps` (static) decreasing timesteps in SD's "leading" spacing with offset 1. Notation:
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
"""State passed between steps: the latent (B, h, w, Z) first; every array has a leading batch axis."""
Point = tuple[Any, ...]
"""Timestep and coefficients of a step; for all steps, with a leading axis of steps."""


@dataclass(frozen=True)
class Sampler:
    """A sampler. Calling it runs one loop inside jit; its parts let the host run step by step."""

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
        """Sample a clean latent. Raises ValueError like `sample_timesteps`."""
        state, points = self.start(schedule, noise, steps, **options)
        return lax.scan(lambda state, at: (self.step(predict_noise, state, at), None), state, points)[0][0]


def sample_timesteps(train_timesteps: int, steps: int, left_out: int = 0) -> Int[Array, " steps"]:
    """Return SD's "leading" spacing with offset 1, decreasing: for 1000 timesteps and 50 steps 981, 961, ..., 1.

    `left_out` additional timesteps are spaced evenly with the others, and dropped at the end. Raises ValueError for too
    few or too many steps.
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
    """Return the points of a first-order sampler; `last` is alpha_bar at the end."""
    alpha_bar = jnp.append(schedule.alpha_bar[timesteps], last)
    return (noise, keys), (timesteps, alpha_bar[:-1], alpha_bar[1:], jnp.full(len(timesteps), eta, jnp.float32))


def _first_order(predict_noise: PredictNoise, state: State, at: Point) -> State:
    """z_0 = (z_t - sigma_t eps) / alpha_t, then Equation 3 at the next timestep with the same eps, partly renewed."""
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
    half_log_snr = jnp.log(alpha[:-1] / sigma[:-1])  # lambda in the paper; infinite at the end
    h = jnp.diff(half_log_snr)
    slope = jnp.zeros(steps).at[1:-1].set(h[1:] / (2 * h[:-1]))
    keep = sigma[1:] / sigma[:-1]
    gain = alpha[1:] - alpha[:-1] * keep  # alpha_t (1 - exp(-h))
    return (noise, jnp.zeros_like(noise)), (timesteps, alpha[:-1], sigma[:-1], keep, gain, slope)


def _second_order(predict_noise: PredictNoise, state: State, at: Point) -> State:
    """Combine z_0 of this step and of the previous one; the first and the last step are first order."""
    (latent, clean_before), (timestep, alpha, sigma, keep, gain, slope) = state, at
    predicted = predict_noise(latent, jnp.full(latent.shape[0], timestep))
    clean = (latent - sigma * predicted) / alpha
    return keep * latent + gain * (clean + slope * (clean - clean_before)), clean


ddim_sample = Sampler(_ddim, _first_order)
"""DDIM (Song et al. 2021, Equation 12), the paper's sampler; it ends at timestep 0, as SD's does.

Options: `skipped` omits the first steps, and `noise` is then a latent noised to the timestep after them. `eta` weights
the fresh noise of each step, drawn from `keys`: 1 gives DDPM; without keys no noise is added.
"""

euler_sample = Sampler(_euler, _first_order)
"""Euler's method on d(z / alpha) / d(sigma / alpha) = eps (Karras et al. 2022), down to sigma = 0.

Its steps equal DDIM's in other variables; the two differ only in their end point.
"""

dpm_solver_sample = Sampler(_dpm_solver, _second_order)
"""DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), down to sigma = 0; its authors find 15 to 20 steps sufficient."""

SAMPLERS: dict[str, Sampler] = {"ddim": ddim_sample, "euler": euler_sample, "dpm": dpm_solver_sample}
