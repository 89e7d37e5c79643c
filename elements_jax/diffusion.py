"""The diffusion process: noise schedule, noising, joint guidance and the DDIM sampler, as pure functions.

A network enters as a function `predict_noise(latent, timestep) -> noise`; what it is conditioned on is its caller's
business. Notation: alpha_bar_t is `schedule.alpha_bar[t]`, z_t the noisy latent, eps the noise.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from elements_jax.config import DiffusionConfig
from elements_jax.pytree import pytree_dataclass

PredictNoise = Callable[[Float[Array, "B h w Z"], Int[Array, " B"]], Float[Array, "B h w Z"]]


@pytree_dataclass
class Schedule:
    """How much of the signal is left at each of the T training timesteps."""

    alpha_bar: Float[Array, " T"]  # prod of alpha_1 ... alpha_t (Equation 3)


def make_schedule(config: DiffusionConfig) -> Schedule:
    """SD's scaled-linear schedule: betas whose square roots are evenly spaced."""
    betas = jnp.linspace(config.beta_start**0.5, config.beta_end**0.5, config.train_timesteps, dtype=jnp.float32) ** 2
    return Schedule(alpha_bar=jnp.cumprod(1 - betas))


def add_noise(
    schedule: Schedule, latent: Float[Array, "B h w Z"], noise: Float[Array, "B h w Z"], timestep: Int[Array, " B"]
) -> Float[Array, "B h w Z"]:
    """Equation 3: z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps."""
    alpha_bar = schedule.alpha_bar[timestep][:, None, None, None]
    return jnp.sqrt(alpha_bar) * latent + jnp.sqrt(1 - alpha_bar) * noise


def velocity(
    schedule: Schedule, latent: Float[Array, "B h w Z"], noise: Float[Array, "B h w Z"], timestep: Int[Array, " B"]
) -> Float[Array, "B h w Z"]:
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) z_0 (Salimans & Ho 2022), of a clean latent z_0."""
    alpha_bar = schedule.alpha_bar[timestep][:, None, None, None]
    return jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * latent


def noise_from_velocity(
    schedule: Schedule, v: Float[Array, "B h w Z"], latent: Float[Array, "B h w Z"], timestep: Int[Array, " B"]
) -> Float[Array, "B h w Z"]:
    """eps = sqrt(alpha_bar_t) v + sqrt(1 - alpha_bar_t) z_t, of a noisy latent z_t."""
    alpha_bar = schedule.alpha_bar[timestep][:, None, None, None]
    return jnp.sqrt(alpha_bar) * v + jnp.sqrt(1 - alpha_bar) * latent


def guided(predict_noise: PredictNoise, guidance: Float[Array, ""]) -> PredictNoise:
    """Joint classifier-free guidance (Section 4.1): eps(z, 0, 0) + w (eps(z, C, S) - eps(z, 0, 0)).

    Both predictions are one batch of twice the size: `predict_noise` conditions its first half and not its second.
    """

    def predict(latent: Float[Array, "B h w Z"], timestep: Int[Array, " B"]) -> Float[Array, "B h w Z"]:
        both = predict_noise(jnp.concatenate([latent, latent]), jnp.concatenate([timestep, timestep]))
        conditional, unconditional = jnp.split(both, 2)
        return unconditional + guidance * (conditional - unconditional)

    return predict


def sample_timesteps(train_timesteps: int, steps: int) -> Int[Array, " steps"]:
    """The timesteps of a sample, falling: SD's "leading" spacing with offset 1 (for 1000 and 50: 981, 961, ..., 1)."""
    return jnp.arange(steps)[::-1] * (train_timesteps // steps) + 1


def ddim_step(
    schedule: Schedule,
    latent: Float[Array, "B h w Z"],
    noise: Float[Array, "B h w Z"],
    timestep: Int[Array, ""],
    previous: Int[Array, ""],
) -> Float[Array, "B h w Z"]:
    """One deterministic step (eta = 0) from `timestep` to `previous` < `timestep`, given the predicted noise.

    z_0 = (z_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t);  z_prev = Equation 3 at `previous` with the same eps.
    A negative `previous` means the end; SD takes alpha_bar_0 there (`set_alpha_to_one=False`).
    """
    alpha_bar, alpha_bar_previous = schedule.alpha_bar[timestep], schedule.alpha_bar[jnp.maximum(previous, 0)]
    clean = (latent - jnp.sqrt(1 - alpha_bar) * noise) / jnp.sqrt(alpha_bar)
    return jnp.sqrt(alpha_bar_previous) * clean + jnp.sqrt(1 - alpha_bar_previous) * noise


def ddim_sample(
    predict_noise: PredictNoise, schedule: Schedule, noise: Float[Array, "B h w Z"], steps: int
) -> Float[Array, "B h w Z"]:
    """Run DDIM from pure noise z_T to a clean latent in `steps` steps (static), as one loop inside jit."""
    train_timesteps = schedule.alpha_bar.shape[0]
    stride = train_timesteps // steps

    def step(latent, timestep):
        predicted = predict_noise(latent, jnp.full(latent.shape[0], timestep))
        return ddim_step(schedule, latent, predicted, timestep, timestep - stride), None

    latent, _ = lax.scan(step, noise, sample_timesteps(train_timesteps, steps))
    return latent
