"""One update of the state: loss, gradient, optimiser, average."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, Shaped

from train.config import TrainConfig
from train.dropout import pair
from train.stage import Batch, Metrics, Stage, Tree, example_keys
from train.state import State, learning_rate

Step = Callable[[State, Tree, Batch, Key[Array, ""]], tuple[State, Metrics]]


def make_step(stage: Stage, optimizer: optax.GradientTransformation, train: TrainConfig) -> Step:
    """The pure function (state, frozen, batch, key) -> (state, metrics) that the loop compiles.

    Where the loss or the gradient is not finite, the state stays but for its step, and the metric `skipped` is 1.
    """
    rate = learning_rate(train)

    def mean_gradient(params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]) -> tuple[Metrics, Tree]:
        (loss, metrics), gradient = jax.value_and_grad(stage.loss, has_aux=True)(params, frozen, batch, keys)
        return metrics | {"loss": loss}, gradient

    def accumulated(params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]) -> tuple[Metrics, Tree]:
        def divided(array: Shaped[Array, "B *rest"]) -> Shaped[Array, "A b *rest"]:
            # Every A-th example, not runs of them: so each device has its share of every part already.
            return jnp.moveaxis(array.reshape(-1, train.accumulate, *array.shape[1:]), 1, 0)

        def add(total, part):
            return jax.tree.map(jnp.add, total, mean_gradient(params, frozen, *part)), None

        parts = jax.tree.map(divided, (batch, keys))
        shapes = jax.eval_shape(mean_gradient, params, frozen, *jax.tree.map(lambda array: array[0], parts))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, _ = jax.lax.scan(add, nothing, parts)
        return jax.tree.map(lambda leaf: leaf / train.accumulate, total)

    def step(state: State, frozen: Tree, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        keys = example_keys(key, state["step"], batch["index"])
        compute = mean_gradient if train.accumulate == 1 else accumulated
        metrics, gradient = compute(state["params"], frozen, pair(batch), keys)
        norm = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        # As LDM's, the average follows quickly at first, lest it hold the random start for 1 / (1 - decay) steps.
        decay = jnp.minimum(train.ema_decay, (1 + state["step"]) / (10 + state["step"]))
        ema = optax.incremental_update(params, state["ema"], 1 - decay)
        after = State(params=params, opt_state=opt_state, ema=ema, step=state["step"])
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
        metrics |= {"gradient_norm": norm, "learning_rate": rate(state["step"]), "skipped": 1.0 - finite}
        return after | {"step": state["step"] + 1}, metrics

    return step
