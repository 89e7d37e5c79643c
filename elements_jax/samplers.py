"""Samplers: from pure noise z_T to a clean latent, given a function that predicts the noise in a latent.

Each is one loop inside jit over `steps` (static) falling timesteps in SD's "leading" spacing with offset 1. Notation:
alpha_t = sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t), so that z_t = alpha_t z_0 + sigma_t eps (Equation 3).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from elements_jax.diffusion import PredictNoise, Schedule

Sampler = Callable[..., Float[Array, "B h w Z"]]  # (predict_noise, schedule, noise, steps) -> latent


def sample_timesteps(train_timesteps: int, steps: int, left_out: int = 0) -> Int[Array, " steps"]:
    """SD's "leading" spacing with offset 1, falling: for 1000 timesteps and 50 steps 981, 961, ..., 1.

    `left_out` of the evenly spaced timesteps come on top and are left out at the end. Raises ValueError for no steps or
    too many.
    """
    if not 1 <= steps < train_timesteps - left_out:
        raise ValueError(f"expected from 1 to {train_timesteps - left_out - 1} sampling steps, got {steps}")
    return jnp.arange(left_out, steps + left_out)[::-1] * (train_timesteps // (steps + left_out)) + 1


def ddim_sample(
    predict_noise: PredictNoise,
    schedule: Schedule,
    noise: Float[Array, "B h w Z"],
    steps: int,
    *,
    skipped: int = 0,
    eta: Float[Array, ""] | float = 0.0,
    keys: Key[Array, " B"] | None = None,
) -> Float[Array, "B h w Z"]:
    """DDIM (Song et al. 2021, Equation 12), the paper's sampler; it ends at timestep 0, as SD's does.

    The first `skipped` steps are left out: `noise` is then a latent with the noise of the timestep after them. `eta`
    weighs the fresh noise of each step, drawn from `keys`: 1 is DDPM's; without keys there is none.
    """
    timesteps = sample_timesteps(schedule.alpha_bar.shape[0], steps)[skipped:]
    return _first_order(predict_noise, schedule, noise, timesteps, schedule.alpha_bar[0], eta, keys)


def euler_sample(
    predict_noise: PredictNoise, schedule: Schedule, noise: Float[Array, "B h w Z"], steps: int
) -> Float[Array, "B h w Z"]:
    """Euler's method on d(z / alpha) / d(sigma / alpha) = eps (Karras et al. 2022), down to sigma = 0.

    Its steps are DDIM's, written in other variables; the two differ in where they end.
    """
    timesteps = sample_timesteps(schedule.alpha_bar.shape[0], steps)
    return _first_order(predict_noise, schedule, noise, timesteps, jnp.float32(1))


def dpm_solver_sample(
    predict_noise: PredictNoise, schedule: Schedule, noise: Float[Array, "B h w Z"], steps: int
) -> Float[Array, "B h w Z"]:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), down to sigma = 0; its authors find 15 to 20 steps enough.

    Second order, from this step's z_0 and the one before; the first step and the last are of first order.
    """
    timesteps = sample_timesteps(schedule.alpha_bar.shape[0], steps, left_out=1)  # the end itself
    alpha_bar = jnp.append(schedule.alpha_bar[timesteps], 1.0)
    alpha, sigma = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
    half_log_snr = jnp.log(alpha[:-1] / sigma[:-1])  # lambda of the paper; at the end it is infinite
    h = jnp.diff(half_log_snr)
    slope = jnp.zeros(steps).at[1:-1].set(h[1:] / (2 * h[:-1]))
    keep = sigma[1:] / sigma[:-1]
    gain = alpha[1:] - alpha[:-1] * keep  # alpha_t (1 - exp(-h))

    def step(carry, at):
        latent, clean_before = carry
        timestep, alpha, sigma, keep, gain, slope = at
        predicted = predict_noise(latent, jnp.full(latent.shape[0], timestep))
        clean = (latent - sigma * predicted) / alpha
        latent = keep * latent + gain * (clean + slope * (clean - clean_before))
        return (latent, clean), None

    points = (timesteps, alpha[:-1], sigma[:-1], keep, gain, slope)
    (latent, _), _ = lax.scan(step, (noise, jnp.zeros_like(noise)), points)
    return latent


def _first_order(
    predict_noise: PredictNoise,
    schedule: Schedule,
    noise: Float[Array, "B h w Z"],
    timesteps: Int[Array, " steps"],
    last: Float[Array, ""],
    eta: Float[Array, ""] | float = 0.0,
    keys: Key[Array, " B"] | None = None,
) -> Float[Array, "B h w Z"]:
    """z_0 = (z_t - sigma_t eps) / alpha_t, then Equation 3 at the next timestep with the same eps, in part renewed.

    `last` is alpha_bar at the end.
    """

    def step(latent, at):
        timestep, alpha_bar, after = at
        predicted = predict_noise(latent, jnp.full(latent.shape[0], timestep))
        clean = (latent - jnp.sqrt(1 - alpha_bar) * predicted) / jnp.sqrt(alpha_bar)
        if keys is None:
            return jnp.sqrt(after) * clean + jnp.sqrt(1 - after) * predicted, None
        variance = eta**2 * (1 - after) / (1 - alpha_bar) * (1 - alpha_bar / after)
        own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, timestep)
        fresh = jax.vmap(lambda key: jax.random.normal(key, latent.shape[1:]))(own)
        old = jnp.sqrt(1 - after - variance) * predicted
        return jnp.sqrt(after) * clean + old + jnp.sqrt(variance) * fresh, None

    alpha_bar = jnp.append(schedule.alpha_bar[timesteps], last)
    latent, _ = lax.scan(step, noise, (timesteps, alpha_bar[:-1], alpha_bar[1:]))
    return latent


SAMPLERS: dict[str, Sampler] = {"ddim": ddim_sample, "euler": euler_sample, "dpm": dpm_solver_sample}
