"""Samplers against diffusers' schedulers: the same start and the same nonlinear noise prediction give the same end.

Tolerance: 1e-5 of the latent's scale, over complete trajectories.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.config import DiffusionConfig
from elements_jax.diffusion.samplers import SAMPLERS, ddim_sample, sample_timesteps
from elements_jax.diffusion.schedule import add_noise, make_schedule
from tests.helpers.samplers import REFERENCES, SHAPE, normal, predict_noise

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

TOLERANCE = 1e-5


def trajectory(scheduler, start, **per_step):
    """Run diffusers' own loop; schedulers in sigmas start from noise that is scaled up."""
    latent = torch.tensor(start) * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        z = scheduler.scale_model_input(latent, t)
        now = {name: values[i] for name, values in per_step.items()}
        latent = scheduler.step(torch.tanh(z) * (0.5 + t / 2000), t, latent, **now).prev_sample
    return latent.numpy()


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # diffusers' sigmas
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_trajectory_equals_diffusers(name, steps):
    scheduler = REFERENCES[name]()
    scheduler.set_timesteps(steps)
    np.testing.assert_array_equal(sample_timesteps(1000, steps, left_out=int(name == "dpm")), scheduler.timesteps)
    expected = trajectory(scheduler, normal(0))
    ours = jax.jit(SAMPLERS[name], static_argnums=(0, 3))(
        predict_noise, make_schedule(DiffusionConfig()), normal(0), steps
    )
    np.testing.assert_allclose(ours, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_fresh_noise_equals_diffusers(eta):
    scheduler, keys, steps = REFERENCES["ddim"](), jax.random.split(jax.random.key(0), SHAPE[0]), 20
    scheduler.set_timesteps(steps)
    fresh = [
        np.stack([jax.random.normal(jax.random.fold_in(key, int(t)), SHAPE[1:]) for key in keys])
        for t in scheduler.timesteps
    ]
    expected = trajectory(
        scheduler, normal(0), variance_noise=[torch.tensor(noise) for noise in fresh], eta=[eta] * steps
    )
    schedule = make_schedule(DiffusionConfig())
    ours = ddim_sample(predict_noise, schedule, jnp.asarray(normal(0)), steps, eta=jnp.float32(eta), keys=keys)
    np.testing.assert_allclose(ours, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("sample", SAMPLERS.values())
@pytest.mark.parametrize("steps", [0, 1000])
def test_too_few_or_too_many_steps_are_refused(sample, steps):
    with pytest.raises(ValueError, match=r"expected from 1 to 99[89] sampling steps, got"):
        sample(predict_noise, make_schedule(DiffusionConfig()), jnp.zeros(SHAPE), steps)


def test_ddim_with_the_true_noise_recovers_the_latent():
    schedule = make_schedule(DiffusionConfig())
    clean, noise = jnp.asarray(normal(0)), jnp.asarray(normal(1))

    def true_noise(latent, timestep):
        alpha_bar = schedule.alpha_bar[timestep][:, None, None, None]
        return (latent - jnp.sqrt(alpha_bar) * clean) / jnp.sqrt(1 - alpha_bar)

    start = add_noise(schedule, clean, noise, jnp.array([981, 981]))
    end = ddim_sample(true_noise, schedule, start, 50)
    last = schedule.alpha_bar[0]  # SD's DDIM ends at timestep 0, which still holds a little noise
    np.testing.assert_allclose(end, jnp.sqrt(last) * clean + jnp.sqrt(1 - last) * noise, atol=2e-4)
