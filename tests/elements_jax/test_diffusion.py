"""Schedule against diffusers' own, and the algebra of guidance."""

import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.config import DiffusionConfig
from elements_jax.diffusion import add_noise, guided, make_schedule, noise_from_velocity, velocity
from tests.parity.test_samplers import REFERENCES, SHAPE, normal

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


def test_velocity_is_diffusers_and_gives_the_noise_back(reference):
    schedule, timestep = make_schedule(DiffusionConfig()), np.array([3, 871])
    clean, noise, t = jnp.asarray(normal(0)), jnp.asarray(normal(1)), jnp.asarray(timestep)
    v = velocity(schedule, clean, noise, t)
    expected = reference.get_velocity(torch.tensor(normal(0)), torch.tensor(normal(1)), torch.tensor(timestep))
    np.testing.assert_allclose(v, expected, rtol=1e-5, atol=1e-5)
    noisy = add_noise(schedule, clean, noise, t)
    np.testing.assert_allclose(noise_from_velocity(schedule, v, noisy, t), noise, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("guidance", "expected"), [(0.0, -1.0), (1.0, 2.0), (3.0, 8.0)])
def test_joint_guidance_extrapolates_from_the_unconditional_prediction(guidance, expected):
    def predict_noise(latent, timestep):
        halves = jnp.repeat(jnp.array([2.0, -1.0]), len(latent) // 2)
        return jnp.broadcast_to(halves[:, None, None, None], latent.shape)

    predict = guided(predict_noise, jnp.float32([guidance]))
    np.testing.assert_allclose(predict(jnp.zeros(SHAPE), jnp.zeros(2, jnp.int32)), expected)


@pytest.mark.parametrize(("text", "elements"), [(3.0, 3.0), (0.0, 2.0), (7.5, 1.0)])
def test_separate_guidance_weighs_text_and_elements(text, elements):
    def predict_noise(latent, timestep):  # with text and elements, with elements, with neither
        thirds = jnp.repeat(jnp.array([2.0, 1.0, -1.0]), len(latent) // 3)
        return jnp.broadcast_to(thirds[:, None, None, None], latent.shape)

    predict = guided(predict_noise, jnp.float32([text, elements]))
    expected = -1 + elements * (1 - -1) + text * (2 - 1)
    np.testing.assert_allclose(predict(jnp.zeros(SHAPE), jnp.zeros(2, jnp.int32)), expected)
