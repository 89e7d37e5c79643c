"""The training loop, one for every stage.

A run starts from the first available of:

1. the newest checkpoint of its own folder;
2. the state and place in the data of another run's checkpoint (`--resume`);
3. this stage's parameters in the model folder: those of Stable Diffusion or another model (`--init` puts them there),
   or of an earlier run;
4. random parameters.

A checkpoint fits any mesh, number of hosts and number of workers (`train/checkpoint.py`). A run that was killed at any
moment and started again in the same way ends with the same bits as one that was never killed.
"""

import dataclasses
import time
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import jax
from jaxtyping import Array

from elements_jax.parallel import hosts, sharding
from train import travel
from train.checkpoint import Checkpoints, resume
from train.clock import Clock
from train.compiled import compiled_step
from train.config import TrainConfig
from train.input.augment import Augmentation
from train.input.data import dataset
from train.input.stored import Folders, describe, splits
from train.log import Log
from train.preemption import Preemption
from train.sample_grid import grid
from train.stage import Batch, Stage, example_keys
from train.state import State, abstract_state, init_state, make_optimizer
from train.step import jit_evaluation, jit_step
from train.travel import Travel


def fit(
    stage: Stage,
    train: TrainConfig,
    records: Folders,
    run: Path,
    resumed: Path | None = None,
    began: float | None = None,
) -> State:
    """Train `stage` on the records of folders until `train.steps`, for `train.minutes`, or until SIGTERM; return the
    last state.

    The folder `run` receives checkpoints, TensorBoard's events, and sample grids as PNG; the stage exports its averaged
    parameters to its own folder with every checkpoint. `resumed` is the folder of another run or of one of its steps,
    or a file of `travel`; `began` is the `time.monotonic` at which the minutes start, by default now.
    """
    clock = None if train.minutes is None else Clock(train.minutes, time.monotonic() if began is None else began)
    mesh = sharding.make_mesh(train.data_parallel, train.fsdp)
    if train.batch_size % (mesh.size * train.accumulate):
        parts = f" in {train.accumulate} parts" if train.accumulate > 1 else ""
        raise ValueError(f"batch_size={train.batch_size} cannot be split over {mesh.size} devices{parts}")
    optimizer = make_optimizer(train)
    shapes = abstract_state(stage, optimizer)
    state_sharding = sharding.shardings(shapes, mesh)
    batch_sharding, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    frozen = sharding.place_on_mesh(stage.frozen, replicated)
    keys = jax.jit(lambda: tuple(jax.random.split(jax.random.key(train.seed), 3)), out_shardings=replicated)
    init_key, step_key, held_out_key = keys()

    def put(batch: Batch) -> Batch:
        return {name: jax.make_array_from_process_local_data(batch_sharding, array) for name, array in batch.items()}

    step, evaluate = jit_step(stage, optimizer, train, mesh), jit_evaluation(stage, train, mesh)

    def batches(split: str, shuffle: bool, start: int = 0):
        return dataset(
            records,
            split,
            batch_size=train.batch_size,
            seed=train.seed,
            shuffle=shuffle,
            tokenize=stage.tokenize,
            masks=stage.masks,
            cached=stage.cached,
            start=start,
            rows=sharding.local_rows(batch_sharding, train.batch_size),
            augmentation=Augmentation(train.flip, train.crop) if shuffle and (train.flip or train.crop < 1) else None,
            in_memory=train.in_memory and shuffle,
            workers=train.workers if shuffle else 0,
        )

    has_val = "val" in splits(records)
    with closing(batches("val" if has_val else "train", shuffle=False)) as iterator:
        held_out = put(next(iterator))
    held_out_keys = example_keys(held_out_key, 0, held_out["index"])

    def export(state: State) -> None:
        params, batch, keys = hosts.fetch_to_host((state["ema"], held_out, jax.random.key_data(held_out_keys)))
        if hosts.is_main_process():
            made_by = f"runs/{run.name}, step {int(state['step'])}"
            stage.export(params, stage.frozen, batch, jax.random.wrap_key_data(keys), made_by)

    def elapsed() -> tuple[Array, ...]:
        """Return the step's time argument, if the run is timed."""
        if clock is None:
            return ()
        devices = len(sharding.local_rows(batch_sharding, mesh.size))
        return (jax.make_array_from_process_local_data(batch_sharding, clock.elapsed(devices)),)

    with Checkpoints(run, train.keep, train.keep_every) as checkpoints:
        like = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, state_sharding)
        stream = describe(records, "train") | {"seed": train.seed, "settings": dataclasses.asdict(train)}
        found = checkpoints.restore(like, stream)
        if found is None and resumed is not None:
            found = (travel.read if resumed.is_file() else resume)(resumed, like, stream)
        if found is None:
            params = sharding.place_on_mesh(stage.init(init_key, stage.pretrained()), state_sharding["params"])
            start = jax.jit(partial(init_state, optimizer), out_shardings=state_sharding, donate_argnums=0)
            found = start(params), {"examples": 0}
            del params
        state, place = found
        examples = place["examples"]
        first = int(state["step"])
        if clock is None and first >= train.steps:
            export(state)
            return state
        with (
            closing(batches("train", shuffle=True, start=examples)) as iterator,
            Log(run, first, train) as log,
            Preemption() as preempted,
        ):
            log.goes_on(place)
            travelling = None if train.travel is None else Travel(run, shapes, train.travel)
            compiled = compiled_step(stage, step, log, state, frozen, held_out, step_key, *elapsed())
            batch = put(next(iterator))
            if clock is not None:
                clock.start()
            for now in range(first + 1, train.steps + 1) if clock is None else count(first + 1):
                log.profile(now)
                time_passed = elapsed()
                with jax.transfer_guard("disallow"), jax.profiler.StepTraceAnnotation("step", step_num=now):
                    state, metrics = compiled(state, frozen, batch, step_key, *time_passed)
                examples += train.batch_size
                last = clock is None and now == train.steps
                if not last:
                    # The step was started, not awaited: while the devices compute it, the next batch is read and sent
                    # to them, before anything below waits for them.
                    with log.timed("input"):
                        batch = put(next(iterator))
                log.step(now, metrics)
                measures, due = False, time.monotonic()
                if clock is not None:
                    clock.read(metrics["elapsed"])
                    last, measures = clock.over, clock.must_measure
                if samples := now % train.sample_every == 0 or last or measures:
                    with log.timed("samples"):
                        evaluated = evaluate(state["ema"], frozen, held_out, held_out_keys, state["step"])
                        figures, pictures = jax.device_get(evaluated)
                        # jit sorts the names, and every device drew the same number of images.
                        drawn = grid({name: pictures[name][: train.sample_count] for name in stage.rows})
                        path = run / "samples" / f"{now:07d}.png"
                        log.evaluated(now, figures, drawn, path, held_out=has_val)
                ends = last or preempted(now)
                if saves := now % train.checkpoint_every == 0 or ends or measures:
                    with log.timed("checkpoint"):
                        # Save first: a run that finds its export but no checkpoint would take it for pretrained
                        # parameters.
                        checkpoints.save(state, stream | {"examples": examples})
                        export(state)
                        if travelling is not None:
                            travelling.write(state, stream | {"examples": examples})
                if clock is not None and samples and saves:
                    clock.took(time.monotonic() - due)
                if ends:
                    break
    return state
