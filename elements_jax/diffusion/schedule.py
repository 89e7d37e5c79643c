"""The diffusion process: noise schedule, noising and joint guidance, as pure functions (`samplers` solve it).

A network is passed as a function `predict_noise(latent, timestep) -> noise`; conditioning is up to the
caller. Notation: alpha_bar_t is `schedule.alpha_bar[t]`, z_t the noisy latent, eps the noise.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from elements_jax.config import DiffusionConfig
from elements_jax.typing import pytree_dataclass

PredictNoise = Callable[[Float[Array, "B h w Z"], Int[Array, " B"]], Float[Array, "B h w Z"]]


@pytree_dataclass
class Schedule:
    """The share of signal that remains at each of the T training timesteps."""

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
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) z_0 (Salimans & Ho 2022), for a clean latent z_0."""
    alpha_bar = schedule.alpha_bar[timestep][:, None, None, None]
    return jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * latent


def noise_from_velocity(
    schedule: Schedule, v: Float[Array, "B h w Z"], latent: Float[Array, "B h w Z"], timestep: Int[Array, " B"]
) -> Float[Array, "B h w Z"]:
    """eps = sqrt(alpha_bar_t) v + sqrt(1 - alpha_bar_t) z_t, for a noisy latent z_t."""
    alpha_bar = schedule.alpha_bar[timestep][:, None, None, None]
    return jnp.sqrt(alpha_bar) * v + jnp.sqrt(1 - alpha_bar) * latent


def guidance_weights(guidance: float | tuple[float, float]) -> Float[Array, " G"]:
    """Return the weights for `with_guidance`: none if all are 1, since they leave only the condition's prediction."""
    weights = np.atleast_1d(np.asarray(guidance, np.float32))
    return jnp.asarray(weights[:0] if (weights == 1).all() else weights)


def with_guidance(predict_noise: PredictNoise, weights: Float[Array, " G"]) -> PredictNoise:
    """Apply classifier-free guidance over G + 1 nested conditions, the last of which is empty if G is not 0.

    eps_G + sum over g < G of weights[g] (eps_g - eps_{g+1}). With one weight this is the paper's joint guidance
    (Section 4.1), eps(z, 0, 0) + w (eps(z, C, S) - eps(z, 0, 0)); with two, text and elements have separate weights,
    eps(z, 0, 0) + w_S (eps(z, 0, S) - eps(z, 0, 0)) + w_C (eps(z, C, S) - eps(z, 0, S)). Equal weights agree with one.

    Without elements, here as in training, the element tokens are zeros: Algorithm 1's attention to them still adds its
    output bias, whereas S = none would add nothing.

    All predictions form one batch, G + 1 times as large, whose parts `predict_noise` conditions separately.
    """
    parts = len(weights) + 1

    def predict(latent: Float[Array, "B h w Z"], timestep: Int[Array, " B"]) -> Float[Array, "B h w Z"]:
        every = predict_noise(jnp.tile(latent, (parts, 1, 1, 1)), jnp.tile(timestep, parts))
        eps = every.reshape(parts, *latent.shape)
        return eps[-1] + jnp.tensordot(weights, eps[:-1] - eps[1:], axes=1)

    return predict


def with_preserved_region(
    predict_noise: PredictNoise, schedule: Schedule, clean: Float[Array, "B h w Z"], region: Bool[Array, "B h w"]
) -> PredictNoise:
    """Predict noise that leads any sampler to the latent `clean` outside `region`; keep the prediction inside.

    Outside, eps = (z_t - sqrt(alpha_bar_t) z_0) / sqrt(1 - alpha_bar_t) with the given z_0: Equation 3 solved for eps.
    Blended Latent Diffusion (Avrahami et al. 2023) replaces z_t there with a freshly noised z_0. We keep the initial
    noise instead, so that the result solves the same equation that all samplers solve.
    """

    def predict(latent: Float[Array, "B h w Z"], timestep: Int[Array, " B"]) -> Float[Array, "B h w Z"]:
        alpha_bar = schedule.alpha_bar[timestep][:, None, None, None]
        to_clean = (latent - jnp.sqrt(alpha_bar) * clean) / jnp.sqrt(1 - alpha_bar)
        return jnp.where(region[..., None], predict_noise(latent, timestep), to_clean)

    return predict
