"""The state of a run: a pure dict {"params", "opt_state", "ema", "step"}, and the optimiser that moves it."""

from functools import partial
from typing import TypedDict

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from train.config import TrainConfig
from train.stage import Stage, Tree


class State(TypedDict):
    """Everything that a run needs to go on, but for its place in the data."""

    params: Tree
    opt_state: Tree
    ema: Tree
    step: Int[Array, ""]


def learning_rate(train: TrainConfig) -> optax.Schedule:
    """Step -> learning rate: a linear warm-up, then constant or along a cosine down to its final fraction."""
    if train.schedule == "constant":
        return optax.linear_schedule(0.0, train.learning_rate, max(train.warmup, 1))
    return optax.warmup_cosine_decay_schedule(
        0.0,
        train.learning_rate,
        warmup_steps=min(train.warmup, train.steps - 1),
        decay_steps=train.steps,
        end_value=train.learning_rate * train.final_fraction,
    )


def make_optimizer(train: TrainConfig) -> optax.GradientTransformation:
    """AdamW behind a bound on the gradient's norm."""
    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.adamw(
            learning_rate(train), *train.betas, weight_decay=train.weight_decay, mu_dtype=jnp.dtype(train.first_moment)
        ),
    )


def init_state(optimizer: optax.GradientTransformation, params: Tree) -> State:
    """The state before the first step."""
    return State(params=params, opt_state=optimizer.init(params), ema=params, step=jnp.int32(0))


def abstract_state(stage: Stage, optimizer: optax.GradientTransformation) -> State:
    """Shapes and dtypes of the state, without computing any of it."""
    return jax.eval_shape(partial(init_state, optimizer), stage.shapes())
