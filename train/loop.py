"""The training loop, one for every stage.

A run starts from, in this order: the newest checkpoint of its own folder; the parameters that the model folder has of
this stage (Stable Diffusion's, or those of a run before); fresh ones. A run killed at any step and started again ends
with the same bits as one never killed.
"""

import time
from contextlib import closing
from functools import partial
from pathlib import Path

import jax

from elements_jax import sharding
from elements_jax.records import find_shards
from train.checkpoint import Checkpoints
from train.config import TrainConfig
from train.data import dataset
from train.dropout import pair
from train.flops import training_cost
from train.metrics import Log
from train.pictures import grid
from train.preemption import Preemption
from train.stage import Batch, Stage, example_keys
from train.state import State, abstract_state, init_state, make_optimizer
from train.step import jit_evaluation, jit_step


def fit(stage: Stage, train: TrainConfig, records: Path, run: Path) -> State:
    """Train `stage` on the records of a folder until `train.steps`, or SIGTERM; returns the state at the end.

    The folder `run` receives checkpoints, TensorBoard's events, and sample grids as PNG; the stage exports its averaged
    parameters to its own folder with every checkpoint.
    """
    mesh = sharding.make_mesh(train.data_parallel, train.fsdp)
    if train.batch_size % (mesh.size * train.accumulate):
        parts = f" in {train.accumulate} parts" if train.accumulate > 1 else ""
        raise ValueError(f"batch_size={train.batch_size} cannot be split over {mesh.size} devices{parts}")
    init_key, step_key, held_out_key = jax.random.split(jax.random.key(train.seed), 3)
    optimizer = make_optimizer(train)
    shapes = abstract_state(stage, optimizer)
    state_sharding = sharding.shardings(shapes, mesh)
    batch_sharding, replicated = sharding.over_batch(mesh), sharding.replicated(mesh)
    frozen = jax.device_put(stage.frozen, replicated)

    def put(batch: Batch) -> Batch:
        return {name: jax.make_array_from_process_local_data(batch_sharding, array) for name, array in batch.items()}

    step, evaluate = jit_step(stage, optimizer, train, mesh), jit_evaluation(stage, train, mesh)

    def loss(params, frozen, batch, keys):
        return stage.loss(params, frozen, pair(batch), keys)[0]

    def batches(split: str, shuffle: bool):
        return dataset(
            records,
            split,
            batch_size=train.batch_size,
            seed=train.seed,
            shuffle=shuffle,
            tokenize=stage.tokenize,
            cached=stage.cached,
            workers=train.workers if shuffle else 0,
        )

    with closing(batches("val" if "val" in find_shards(records) else "train", shuffle=False)) as iterator:
        held_out = put(next(iterator))
    held_out_keys = example_keys(held_out_key, 0, held_out["index"])
    step_key = jax.device_put(step_key, replicated)
    with (
        closing(batches("train", shuffle=True)) as iterator,
        Checkpoints(run / "checkpoints", train.keep, train.keep_every) as checkpoints,
    ):
        like = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, state_sharding)
        state = checkpoints.restore(like, iterator)
        if state is None:
            pretrained = stage.pretrained()
            start = jax.jit(partial(init_state, stage, optimizer), out_shardings=state_sharding)
            state = start(init_key, jax.device_put(pretrained, sharding.shardings(pretrained, mesh)))
            del pretrained
        first = int(state["step"])
        if first >= train.steps:
            stage.export(state["ema"], frozen, held_out, held_out_keys)
            return state
        with Log(run, first, train) as log, Preemption() as preempted:
            began = time.monotonic()
            compiled = step.lower(state, frozen, held_out, step_key).compile()
            seconds = time.monotonic() - began
            cost = training_cost(loss, shapes["params"], frozen, held_out, held_out_keys)
            log.compiled(shapes["params"], float(cost.flops), compiled, seconds)
            for now in range(first + 1, train.steps + 1):
                log.profile(now)
                with log.timed("input"):
                    batch = put(next(iterator))
                with jax.transfer_guard("disallow"), jax.profiler.StepTraceAnnotation("step", step_num=now):
                    state, metrics = compiled(state, frozen, batch, step_key)
                log.step(now, metrics)
                last = now == train.steps
                if now % train.sample_every == 0 or last:
                    with log.timed("samples"):
                        figures, pictures = jax.device_get(evaluate(state["ema"], frozen, held_out, held_out_keys))
                        # jit sorts the names, and every device drew as many pictures.
                        picture = grid({name: pictures[name][: train.sample_count] for name in stage.rows})
                        log.held_out(now, figures, picture, run / "samples" / f"{now:07d}.png")
                ends = last or preempted(now)
                if now % train.checkpoint_every == 0 or ends:
                    with log.timed("checkpoint"):
                        checkpoints.save(state, iterator)
                        stage.export(state["ema"], frozen, held_out, held_out_keys)
                if ends:
                    break
    return state
