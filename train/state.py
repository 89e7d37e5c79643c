"""The state of a run, a pure dict {"params", "opt_state", "ema", "step"}, and its optimiser."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from elements_jax.typing import Tree
from train.config import TrainConfig
from train.stage import Stage


class State(TypedDict):
    """Everything that a run needs to resume, except its place in the data."""

    params: Tree
    opt_state: Tree
    ema: Tree
    step: Int[Array, ""]


def learning_rate(train: TrainConfig) -> optax.Schedule:
    """Return step -> learning rate: a linear warm-up, then `train.schedule` over `train.steps`."""
    if train.schedule == "constant":
        return optax.linear_schedule(0.0, train.learning_rate, max(train.warmup, 1))
    if train.schedule == "wsd":
        decay = max(round(train.steps * train.decay_fraction), 1)
        warmup = max(min(train.warmup, train.steps - decay), 1)
        fall = optax.linear_schedule(train.learning_rate, train.learning_rate * train.final_fraction, decay)
        stay = optax.constant_schedule(train.learning_rate)
        rise = optax.linear_schedule(0.0, train.learning_rate, warmup)
        return optax.join_schedules([rise, stay, fall], [warmup, max(train.steps - decay, warmup)])
    return optax.warmup_cosine_decay_schedule(
        0.0,
        train.learning_rate,
        warmup_steps=min(train.warmup, train.steps - 1),
        decay_steps=train.steps,
        end_value=train.learning_rate * train.final_fraction,
    )


def learning_rate_by_clock(train: TrainConfig) -> Callable[[Int[Array, ""], Float[Array, ""]], Float[Array, ""]]:
    """Return (step, elapsed share of time) -> learning rate: the warm-up counts steps, `train.schedule` time."""

    def rate(step: Int[Array, ""], elapsed: Float[Array, ""]) -> Float[Array, ""]:
        match train.schedule:
            case "constant":
                fallen = jnp.float32(0)
            case "cosine":
                fallen = (1 - jnp.cos(jnp.pi * elapsed)) / 2
            case "wsd":
                fallen = jnp.clip((elapsed - 1) / train.decay_fraction + 1, 0, 1)
        risen = jnp.minimum(step / max(train.warmup, 1), 1)
        return train.learning_rate * risen * (1 - (1 - train.final_fraction) * fallen)

    return rate


def make_optimizer(train: TrainConfig) -> optax.GradientTransformationExtraArgs:
    """Return AdamW with a bound on the gradient's norm.

    If `train.minutes` is set, `update` also takes `elapsed`, the share of the time that has passed. The state has the
    same arrays with and without the clock.
    """
    if train.minutes is not None:
        return optax.chain(
            optax.clip_by_global_norm(train.clip_norm),
            optax.chain(  # optax.adamw's parts
                optax.scale_by_adam(*train.betas, mu_dtype=jnp.dtype(train.first_moment)),
                optax.add_decayed_weights(train.weight_decay),
                _scale_by_clock(train),
            ),
        )
    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.adamw(
            learning_rate(train), *train.betas, weight_decay=train.weight_decay, mu_dtype=jnp.dtype(train.first_moment)
        ),
    )


def _scale_by_clock(train: TrainConfig) -> optax.GradientTransformationExtraArgs:
    """Scale updates by the schedule over time, as `optax.scale_by_learning_rate` does over steps."""
    rate = learning_rate_by_clock(train)

    def init(params: Tree) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: Tree, state: optax.ScaleByScheduleState, params: Tree = None, *, elapsed: Float[Array, ""], **_: Any
    ) -> tuple[Tree, optax.ScaleByScheduleState]:
        scale = -rate(state.count, elapsed)
        scaled = jax.tree.map(lambda leaf: scale.astype(leaf.dtype) * leaf, updates)
        return scaled, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init, update)


def init_state(optimizer: optax.GradientTransformation, params: Tree) -> State:
    """Return the state before the first step."""
    return State(params=params, opt_state=optimizer.init(params), ema=params, step=jnp.int32(0))


def abstract_state(stage: Stage, optimizer: optax.GradientTransformation) -> State:
    """Return shapes and dtypes of the state, without computing it."""
    return jax.eval_shape(partial(init_state, optimizer), stage.shapes())
