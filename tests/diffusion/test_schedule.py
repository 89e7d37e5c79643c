"""Schedule against diffusers' own, and the algebra of guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.config import DiffusionConfig
from elements_jax.diffusion.samplers import SAMPLERS, ddim_sample
from elements_jax.diffusion.schedule import (
    add_noise,
    make_schedule,
    noise_from_velocity,
    velocity,
    with_guidance,
    with_preserved_region,
)
from tests.helpers.samplers import REFERENCES, SHAPE, normal, predict_noise

torch = pytest.importorskip("torch")


@pytest.fixture
def reference():
    return REFERENCES["ddim"]()


def test_schedule_is_stable_diffusions(reference):
    np.testing.assert_allclose(make_schedule(DiffusionConfig()).alpha_bar, reference.alphas_cumprod, rtol=2e-5)


def test_add_noise_is_equation_3(reference):
    timestep = np.array([3, 871])
    expected = reference.add_noise(torch.tensor(normal(0)), torch.tensor(normal(1)), torch.tensor(timestep))
    ours = add_noise(
        make_schedule(DiffusionConfig()), jnp.asarray(normal(0)), jnp.asarray(normal(1)), jnp.asarray(timestep)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_velocity_equals_diffusers_and_restores_the_noise(reference):
    schedule, timestep = make_schedule(DiffusionConfig()), np.array([3, 871])
    clean, noise, t = jnp.asarray(normal(0)), jnp.asarray(normal(1)), jnp.asarray(timestep)
    v = velocity(schedule, clean, noise, t)
    expected = reference.get_velocity(torch.tensor(normal(0)), torch.tensor(normal(1)), torch.tensor(timestep))
    np.testing.assert_allclose(v, expected, rtol=1e-5, atol=1e-5)
    noisy = add_noise(schedule, clean, noise, t)
    np.testing.assert_allclose(noise_from_velocity(schedule, v, noisy, t), noise, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("guidance", "expected"), [(0.0, -1.0), (1.0, 2.0), (3.0, 8.0)])
def test_joint_guidance_extrapolates_from_unconditional(guidance, expected):
    def predict_noise(latent, timestep):
        halves = jnp.repeat(jnp.array([2.0, -1.0]), len(latent) // 2)
        return jnp.broadcast_to(halves[:, None, None, None], latent.shape)

    predict = with_guidance(predict_noise, jnp.float32([guidance]))
    np.testing.assert_allclose(predict(jnp.zeros(SHAPE), jnp.zeros(2, jnp.int32)), expected)


@pytest.mark.parametrize(("text", "elements"), [(3.0, 3.0), (0.0, 2.0), (7.5, 1.0)])
def test_separate_guidance_weighs_text_and_elements(text, elements):
    def predict_noise(latent, timestep):  # with text and elements, with elements, with neither
        thirds = jnp.repeat(jnp.array([2.0, 1.0, -1.0]), len(latent) // 3)
        return jnp.broadcast_to(thirds[:, None, None, None], latent.shape)

    predict = with_guidance(predict_noise, jnp.float32([text, elements]))
    expected = -1 + elements * (1 - -1) + text * (2 - 1)
    np.testing.assert_allclose(predict(jnp.zeros(SHAPE), jnp.zeros(2, jnp.int32)), expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_end_at_the_preserved_latent_outside_the_region(name):
    schedule, clean = make_schedule(DiffusionConfig()), jnp.asarray(normal(1))
    region = np.random.default_rng(2).random(SHAPE[:3]) < 0.5
    free, kept = (
        np.asarray(SAMPLERS[name](predict, schedule, jnp.asarray(normal(0)), 20))
        for predict in (predict_noise, with_preserved_region(predict_noise, schedule, clean, jnp.asarray(region)))
    )
    expected = clean
    if name == "ddim":  # ends at timestep 0, which still holds a little of the initial noise
        first, last = schedule.alpha_bar[951], schedule.alpha_bar[0]
        noise = (normal(0) - jnp.sqrt(first) * clean) / jnp.sqrt(1 - first)
        expected = jnp.sqrt(last) * clean + jnp.sqrt(1 - last) * noise
    np.testing.assert_allclose(kept[~region], expected[~region], atol=2e-5)
    np.testing.assert_array_equal(kept[region], free[region])  # this prediction is pixel by pixel
    assert (np.abs(free - expected)[~region] > 0.1).any()


def test_fresh_noise_leaves_the_preserved_latent_too():
    schedule, clean = make_schedule(DiffusionConfig()), jnp.asarray(normal(1))
    predict = with_preserved_region(predict_noise, schedule, clean, jnp.zeros(SHAPE[:3], bool))
    keys = jax.random.split(jax.random.key(0), SHAPE[0])
    ends = [ddim_sample(predict, schedule, jnp.asarray(normal(i)), 5, eta=1.0, keys=keys) for i in (0, 2)]
    last = np.sqrt(schedule.alpha_bar[0])
    noise = (np.stack(ends) - last * clean) / np.sqrt(1 - last**2)
    assert 0.7 < np.std(noise) < 1.3  # only what DDIM leaves at its end


def test_preserving_nothing_is_the_prediction_itself():
    predict = with_preserved_region(
        predict_noise, make_schedule(DiffusionConfig()), jnp.zeros(SHAPE), jnp.ones(SHAPE[:3], bool)
    )
    latent, timestep = jnp.asarray(normal(0)), jnp.array([1, 981])
    np.testing.assert_array_equal(predict(latent, timestep), predict_noise(latent, timestep))
