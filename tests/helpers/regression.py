"""A stage of two layers with the random draws of stage 2, which compiles in a second, for tests of the run around
it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from train.config import AutoencoderTrainConfig, DiffusionTrainConfig
from train.stage import normal, to_float
from train.stages.conditioning import condition_dropout, dropped_elements

TRAIN = AutoencoderTrainConfig(
    steps=24,
    batch_size=16,
    learning_rate=1e-2,
    warmup=1,
    ema_decay=0.9,
    checkpoint_every=4,
    sample_every=24,
    log_every=1,
)
CONDITIONS = DiffusionTrainConfig(steps=1, batch_size=2, learning_rate=1.0)  # the paper's dropout
POOLED = 4 * 4 * 3


def pooled(image):
    """Return the 4 x 4 mean colours of images of 16 px."""
    return to_float(image).reshape(-1, 4, 4, 4, 4, 3).mean((2, 4)).reshape(-1, POOLED)


class Regression:
    rows = ("input", "reconstruction")
    tokenize = None
    masks = True
    cached = False

    def __init__(self, model, train, folder: Path):
        self.folder, self.frozen = folder, {"scale": np.linspace(0.5, 1, POOLED, dtype=np.float32)}

    def pretrained(self):
        return {}

    def shapes(self):
        return jax.eval_shape(lambda: self.init(jax.random.key(0), {}))

    def init(self, key, pretrained):
        first, second = jax.random.split(key)
        return {
            "in": jax.random.normal(first, (POOLED, 64)) / 7,
            "out": jax.random.normal(second, (64, POOLED)) / 8,
            "bias": jnp.zeros(POOLED),
        }

    def cast(self, params):
        return params

    def draws(self, batch, keys):
        """Draw noise, timesteps, kept conditions, and elements dropped by another example's mask."""
        noise_key, time_key, condition_key, element_key = jax.vmap(lambda key: jax.random.split(key, 4), out_axes=1)(
            keys
        )
        timestep = jax.vmap(lambda key: jax.random.randint(key, (), 0, 1000))(time_key)
        dropped = dropped_elements(
            batch["other_label_map"], batch["other_object_mask"], element_key, probability=0.5, num_elements=4
        )
        return normal(noise_key, (POOLED,)), timestep, *condition_dropout(condition_key, CONDITIONS), dropped

    def predicted(self, params, frozen, x):
        return jnp.tanh(frozen["scale"] * x @ params["in"]) @ params["out"] + params["bias"]

    def loss(self, params, frozen, batch, keys, step):
        noise, timestep, keep_text, keep_elements, dropped = self.draws(batch, keys)
        x = pooled(batch["image"])
        noisy = x + 0.1 * noise * (timestep / 1000 * keep_text)[:, None] + 0.1 * dropped.mean(1, keepdims=True)
        return jnp.mean((self.predicted(params, frozen, noisy) - x * (1 + keep_elements[:, None])) ** 2), {}

    def pictures(self, params, frozen, batch, keys):
        image = self.predicted(params, frozen, pooled(batch["image"])).reshape(-1, 4, 4, 3)
        return {"input": pooled(batch["image"]).reshape(-1, 4, 4, 3), "reconstruction": image}

    def export(self, params, frozen, batch, keys, made_by):
        np.savez(self.folder / "exported.npz", **params, index=batch["index"])
