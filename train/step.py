"""One update of the state: loss, gradient, optimiser, average.

Every device computes the gradient of its own examples with all parameters, which are split between steps (ZeRO,
Rajbhandari et al. 2020): a step gathers them once, in the dtype they are used in, then sums and splits the gradients.
So models know nothing of meshes, and all communication is in this file.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, Shaped

from elements_jax.parallel import sharding
from elements_jax.typing import Tree
from train.config import TrainConfig
from train.stage import Batch, Metrics, Stage, example_keys, psnr
from train.stages.conditioning import with_partner_example
from train.state import State, abstract_state, learning_rate, learning_rate_by_clock


def jit_step(stage: Stage, optimizer: optax.GradientTransformation, train: TrainConfig, mesh: Mesh) -> Any:
    """Return the function (state, frozen, batch, key) -> (state, metrics), jitted for a mesh; it donates the state.

    If `train.minutes` is set, it has a fifth argument: `clock.Clock.elapsed` of all devices.

    If loss, gradient or update is not finite, only the state's step changes, and the metric `skipped` is 1.
    """
    timed = train.minutes is not None
    rate: Callable[..., Any] = learning_rate_by_clock(train) if timed else learning_rate(train)

    def step(
        state: State, frozen: Tree, batch: Batch, key: Key[Array, ""], *elapsed: Float[Array, " devices"]
    ) -> tuple[State, Metrics]:
        keys = example_keys(key, state["step"], batch["index"])
        metrics, gradient = mean_gradient(
            stage, train, mesh, state["params"], frozen, with_partner_example(batch), keys, state["step"]
        )
        norm = optax.tree.norm(gradient)
        clock = {"elapsed": elapsed[0].max()} if timed else {}
        updates, opt_state = optimizer.update(gradient, state["opt_state"], state["params"], **clock)
        params = optax.apply_updates(state["params"], updates)
        # As in LDM, the decay starts low; otherwise the initial weights dominate for about 1 / (1 - decay) steps.
        decay = jnp.minimum(train.ema_decay, (1 + state["step"]) / (10 + state["step"]))
        ema = optax.incremental_update(params, state["ema"], 1 - decay)
        after = State(params=params, opt_state=opt_state, ema=ema, step=state["step"])
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(updates))
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
        metrics |= {"gradient_norm": norm, "learning_rate": rate(state["step"], **clock), "skipped": 1.0 - finite}
        metrics |= clock
        return after | {"step": state["step"] + 1}, metrics

    state_sharding = sharding.shardings(abstract_state(stage, optimizer), mesh)
    replicated, batch = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(state_sharding, replicated, batch, replicated) + timed * (batch,),
        out_shardings=(state_sharding, replicated),
        donate_argnames="state",
    )


def jit_evaluation(stage: Stage, train: TrainConfig, mesh: Mesh) -> Any:
    """Return the function (params, frozen, batch, keys, step) -> (metrics, images), jitted for a mesh.

    The images are of the first examples on every device, at least `train.sample_count` in total.
    """
    count = -(-train.sample_count // mesh.size)

    def evaluate(params, frozen, batch, keys, step):
        loss, metrics = stage.loss(params, frozen, batch, keys, step)
        pictures = stage.pictures(params, frozen, {name: array[:count] for name, array in batch.items()}, keys[:count])
        metrics |= {"loss": loss, "sample_psnr": psnr(pictures["reconstruction"], pictures["input"])}
        return lax.pmean(metrics, mesh.axis_names), lax.all_gather(pictures, mesh.axis_names, tiled=True)

    def on_mesh(params, frozen, batch, keys, step):
        return _on_each_device(evaluate, stage, mesh, params, PartitionSpec())(
            params, frozen, with_partner_example(batch), keys, step
        )

    return jax.jit(on_mesh, out_shardings=sharding.replicated(mesh))


def mean_gradient(
    stage: Stage,
    train: TrainConfig,
    mesh: Mesh,
    params: Tree,
    frozen: Tree,
    batch: Batch,
    keys: Key[Array, " B"],
    step: Int[Array, ""],
) -> tuple[Metrics, Tree]:
    """Return metrics and gradient of the mean loss over a paired batch; the gradient is sharded like `params`."""
    specs = sharding.partition_specs(params, mesh)

    def of_part(
        params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " b"], step: Int[Array, ""]
    ) -> tuple[Metrics, Tree]:
        (loss, metrics), gradient = jax.value_and_grad(stage.loss, has_aux=True)(params, frozen, batch, keys, step)
        metrics = lax.pmean(metrics | {"loss": loss}, mesh.axis_names)
        return metrics, sharding.reduce_scatter_grads(_laid_out_like_state(gradient), specs)

    def divided(array: Shaped[Array, "b *rest"]) -> Shaped[Array, "A b/A *rest"]:
        return array.reshape(train.accumulate, -1, *array.shape[1:])

    def accumulated(
        params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " b"], step: Int[Array, ""]
    ) -> tuple[Metrics, Tree]:
        def add(sums, part):
            batch, keys = part
            return jax.tree.map(jnp.add, sums, of_part(params, frozen, batch, keys, step)), None

        parts = jax.tree.map(divided, (batch, keys))
        shapes = jax.eval_shape(of_part, params, frozen, *jax.tree.map(lambda array: array[0], parts), step)
        total, _ = lax.scan(add, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), parts)
        return jax.tree.map(lambda leaf: leaf / train.accumulate, total)

    compute = of_part if train.accumulate == 1 else accumulated
    return _on_each_device(compute, stage, mesh, params, (PartitionSpec(), specs))(params, frozen, batch, keys, step)


def _laid_out_like_state(gradient: Tree) -> Tree:
    """Keep the gradient's arrays in memory as the state's are.

    On GPUs a convolution gives its kernel's gradient with the output channels first. XLA would compute the update in
    that order, and transpose every array of the state there and back.
    """
    return jax.tree.map(lambda leaf: with_layout_constraint(leaf, Layout(tuple(range(leaf.ndim)))), gradient)


def _on_each_device(function: Callable, stage: Stage, mesh: Mesh, params: Tree, out_specs: Tree) -> Callable:
    """Run `function(params, frozen, batch, keys, step)` on every device, on its own examples and all parameters."""
    specs, split = sharding.partition_specs(params, mesh), sharding.batch_sharding(mesh).spec

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(specs, PartitionSpec(), split, split, PartitionSpec()),
        out_specs=out_specs,
        check_vma=False,  # kernels do not say over which axes their results vary
    )
    def run(params, frozen, batch, keys, step):
        return function(sharding.all_gather_params(stage.cast(params), specs), frozen, batch, keys, step)

    return run
