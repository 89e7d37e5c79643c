"""diffusers' schedulers, and a prediction to sample with."""

import jax.numpy as jnp
import numpy as np
import pytest

diffusers = pytest.importorskip("diffusers")

SHAPE = (2, 4, 4, 3)


SD = {  # scheduler/scheduler_config.json of Stable Diffusion 1.5
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


REFERENCES = {
    "ddim": lambda: diffusers.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**SD),
    "dpm": lambda: diffusers.DPMSolverMultistepScheduler(**SD),
}


def normal(seed):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def predict_noise(latent, timestep):
    return jnp.tanh(latent) * (0.5 + timestep[:, None, None, None] / 2000)
