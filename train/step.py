"""One update of the state: loss, gradient, optimiser, average."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from train.config import TrainConfig
from train.stage import Batch, Metrics, Stage, Tree, example_keys
from train.state import State, learning_rate

Step = Callable[[State, Tree, Batch, Key[Array, ""]], tuple[State, Metrics]]


def make_step(stage: Stage, optimizer: optax.GradientTransformation, train: TrainConfig) -> Step:
    """The pure function (state, frozen, batch, key) -> (state, metrics) that the loop compiles."""
    rate = learning_rate(train)

    def step(state: State, frozen: Tree, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        keys = example_keys(key, state["step"], batch["index"])
        (loss, metrics), gradient = jax.value_and_grad(stage.loss, has_aux=True)(state["params"], frozen, batch, keys)
        updates, opt_state = optimizer.update(gradient, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        # As LDM's, the average follows quickly at first, lest it hold the random start for 1 / (1 - decay) steps.
        decay = jnp.minimum(train.ema_decay, (1 + state["step"]) / (10 + state["step"]))
        ema = optax.incremental_update(params, state["ema"], 1 - decay)
        metrics |= {"loss": loss, "gradient_norm": optax.tree.norm(gradient), "learning_rate": rate(state["step"])}
        return State(params=params, opt_state=opt_state, ema=ema, step=state["step"] + 1), metrics

    return step
