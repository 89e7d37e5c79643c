"""Schedule and sampler against diffusers' own, and the algebra of guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.config import DiffusionConfig
from elements_jax.diffusion import (
    add_noise,
    ddim_sample,
    guided,
    make_schedule,
    noise_from_velocity,
    sample_timesteps,
    velocity,
)

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

SHAPE = (2, 4, 4, 3)


@pytest.fixture
def reference():
    config = DiffusionConfig()
    return diffusers.DDIMScheduler(
        num_train_timesteps=config.train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def normal(seed):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def test_schedule_is_stable_diffusions(reference):
    np.testing.assert_allclose(make_schedule(DiffusionConfig()).alpha_bar, reference.alphas_cumprod, rtol=2e-5)


def test_add_noise_is_equation_3(reference):
    timestep = np.array([3, 871])
    expected = reference.add_noise(torch.tensor(normal(0)), torch.tensor(normal(1)), torch.tensor(timestep))
    ours = add_noise(
        make_schedule(DiffusionConfig()), jnp.asarray(normal(0)), jnp.asarray(normal(1)), jnp.asarray(timestep)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_ddim_trajectory_equals_diffusers(reference, steps):
    """Same start, same (nonlinear) noise prediction: the ends agree to 1e-5 of the latent's scale."""
    reference.set_timesteps(steps)
    np.testing.assert_array_equal(sample_timesteps(1000, steps), reference.timesteps)
    latent = torch.tensor(normal(0))
    for t in reference.timesteps:
        latent = reference.step(torch.tanh(latent) * (0.5 + t / 2000), t, latent).prev_sample

    def predict_noise(latent, timestep):
        return jnp.tanh(latent) * (0.5 + timestep[:, None, None, None] / 2000)

    sample = jax.jit(ddim_sample, static_argnums=(0, 3))
    ours = sample(predict_noise, make_schedule(DiffusionConfig()), jnp.asarray(normal(0)), steps)
    np.testing.assert_allclose(ours, latent, rtol=1e-5, atol=1e-5 * float(latent.abs().max()))


def test_velocity_is_diffusers_and_gives_the_noise_back(reference):
    schedule, timestep = make_schedule(DiffusionConfig()), np.array([3, 871])
    clean, noise, t = jnp.asarray(normal(0)), jnp.asarray(normal(1)), jnp.asarray(timestep)
    v = velocity(schedule, clean, noise, t)
    expected = reference.get_velocity(torch.tensor(normal(0)), torch.tensor(normal(1)), torch.tensor(timestep))
    np.testing.assert_allclose(v, expected, rtol=1e-5, atol=1e-5)
    noisy = add_noise(schedule, clean, noise, t)
    np.testing.assert_allclose(noise_from_velocity(schedule, v, noisy, t), noise, rtol=1e-4, atol=1e-5)


def test_ddim_with_the_true_noise_returns_the_latent_it_was_added_to():
    schedule = make_schedule(DiffusionConfig())
    clean, noise = jnp.asarray(normal(0)), jnp.asarray(normal(1))

    def true_noise(latent, timestep):
        alpha_bar = schedule.alpha_bar[timestep][:, None, None, None]
        return (latent - jnp.sqrt(alpha_bar) * clean) / jnp.sqrt(1 - alpha_bar)

    start = add_noise(schedule, clean, noise, jnp.array([981, 981]))
    end = ddim_sample(true_noise, schedule, start, 50)
    last = schedule.alpha_bar[0]  # SD's DDIM ends at timestep 0, which still holds a little noise
    np.testing.assert_allclose(end, jnp.sqrt(last) * clean + jnp.sqrt(1 - last) * noise, atol=2e-4)


@pytest.mark.parametrize(("guidance", "expected"), [(0.0, -1.0), (1.0, 2.0), (3.0, 8.0)])
def test_joint_guidance_extrapolates_from_the_unconditional_prediction(guidance, expected):
    def predict_noise(latent, timestep):
        halves = jnp.repeat(jnp.array([2.0, -1.0]), len(latent) // 2)
        return jnp.broadcast_to(halves[:, None, None, None], latent.shape)

    predict = guided(predict_noise, jnp.float32(guidance))
    np.testing.assert_allclose(predict(jnp.zeros(SHAPE), jnp.zeros(2, jnp.int32)), expected)
