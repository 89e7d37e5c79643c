"""Compile the training step, and count its FLOPs meanwhile."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled
from jaxtyping import Array, Key

from elements_jax.parallel import hosts
from elements_jax.progress import waiting
from elements_jax.typing import Tree
from train.cost.flops import training_cost
from train.log import Log
from train.stage import Batch, Stage, example_keys
from train.stages.conditioning import with_partner_example
from train.state import State


def compiled_step(
    stage: Stage, step: Any, log: Log, state: State, frozen: Tree, batch: Batch, key: Key[Array, ""], *elapsed: Array
) -> Compiled:
    """Compile `step` for these arguments, and report its size and cost to the log.

    Another thread counts its operations during compilation and the first steps.
    """

    def loss(params, frozen, batch, key):
        return stage.loss(
            params, frozen, with_partner_example(batch), example_keys(key, 0, batch["index"]), jnp.int32(0)
        )[0]

    def flops(*shapes: Tree) -> float:
        return training_cost(loss, *shapes).flops

    began = time.monotonic()
    with waiting("compiling the training step") if hosts.is_main_process() else nullcontext():
        lowered = step.lower(state, frozen, batch, key, *elapsed)
        # Count from shapes, since the first step donates the state, and after lowering, since only compiling frees the
        # GIL.
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (state["params"], frozen, batch, key))
        thread = ThreadPoolExecutor(1, "flops")
        counted = thread.submit(flops, *shapes)
        thread.shutdown(wait=False)
        compiled = lowered.compile()
    log.compiled(state["params"], counted.result, compiled, time.monotonic() - began)
    return compiled
