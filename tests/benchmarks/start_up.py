"""Seconds from a command to its first step or image, by phase, with an empty cache of programs and with a full one.

    python -m tests.benchmarks.start_up
    python -m tests.benchmarks.start_up --cases edit tiny

`edit` is `elements edit` on a photograph with the included model. The others are presets: the training step of stage 2
and the sampler, traced, lowered and, with --compile, compiled from shapes for this machine's devices. Every figure is
from a fresh process; `CPU` is the seconds of all its threads, which other processes on the machine hardly change.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import tyro

Phases = dict[str, tuple[float, float]]
"""Seconds on the clock and on the CPUs."""


class Clock:
    """Measures phases of this process, including its start."""

    def __init__(self) -> None:
        self.phases: Phases = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.phases[name] = time.perf_counter() - wall, time.process_time() - cpu


def edit(clock: Clock, compile: bool) -> None:
    """Edit a photograph as `elements edit` does."""
    with clock.phase("imports"):
        from elements_jax import TINY
        from elements_jax.cli.command import exit_code
        from elements_jax.cli.photos import DEFAULT_SOURCE, PhotoSegmenter
        from elements_jax.editing.script import EditScript, Move
        from elements_jax.pipeline.pipeline import ElementsPipeline
        from elements_jax.pipeline.session import EditSession
    exit_code(lambda: None)  # sets JAX up as commands do
    with clock.phase("model"):
        pipeline = ElementsPipeline.from_pretrained(TINY)
        editing = EditSession(pipeline, PhotoSegmenter(pipeline.config.elements, DEFAULT_SOURCE), "slic")
    with clock.phase("photograph, encoding, edit"):
        import skimage

        path = Path(skimage.__file__).parent / "data" / "astronaut.png"
        photo = editing.open(path.read_bytes(), "crop")
        script = EditScript(edits=[Move(edit="move", elements=[20], by=(0.2, 0.0))])
        edited = editing.edit(photo, script, lambda name: photo)
    reported: list[float] = []

    def report() -> bool:
        if not reported:
            reported.extend((time.perf_counter(), time.process_time()))
        return True

    began = time.perf_counter(), time.process_time()
    editing.decode(photo, edited, script, report)
    clock.phases["until the first step"] = reported[0] - began[0], reported[1] - began[1]
    clock.phases["steps and picture"] = time.perf_counter() - reported[0], time.process_time() - reported[1]


def preset(name: str, clock: Clock, compile: bool) -> None:
    """Prepare a preset's training step of stage 2, and its sampler."""
    with clock.phase("imports"):
        import jax

        from elements_jax.cli.command import exit_code
        from elements_jax.diffusion.samplers import ddim_sample
        from elements_jax.models.method import jit_decode
        from elements_jax.models.networks import Networks
        from elements_jax.parallel.sharding import make_mesh
        from train.cost.ahead_of_time import sampler_arguments, stage_of_shapes, step_arguments, step_flops
        from train.state import make_optimizer
        from train.step import jit_step
    exit_code(lambda: None)
    module = importlib.import_module(f"configs.{name}")
    model, train, mesh = module.MODEL, module.DIFFUSION, make_mesh(1, 1, jax.devices()[:1])
    with clock.phase("structure"):
        networks, stage = Networks(model), stage_of_shapes(model, train)
        arguments = step_arguments(stage, train, mesh)
    with clock.phase("parameters"):
        stage.init(jax.random.key(0), {})
    with clock.phase("step: trace"):
        traced = jit_step(stage, make_optimizer(train), train, mesh).trace(*arguments)
    with clock.phase("step: lower"):
        step = traced.lower()
    with clock.phase("step: FLOPs"):
        step_flops(stage, train)
    with clock.phase("sampler: trace"):
        shared, batch = sampler_arguments(networks, 1, mesh)
        steps = model.diffusion.sample_steps
        traced = jit_decode(networks, mesh).trace(shared, batch, steps=steps, sampler=ddim_sample)
    with clock.phase("sampler: lower"):
        sampler = traced.lower()
    if compile:
        with clock.phase("step: compile"):
            step.compile()
        with clock.phase("sampler: compile"):
            sampler.compile()


def measured(case: str, cache: str, compile: bool) -> Phases:
    """Return the phases of a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.start_up", "--one", case, str(int(compile))]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    began = time.perf_counter()
    shown = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    phases = json.loads(shown.stdout.splitlines()[-1])
    cpu = sum(seconds for _, seconds in phases.values())
    return phases | {"the whole process": (time.perf_counter() - began, cpu)}


def main(cases: tuple[Literal["edit", "tiny", "sd15"], ...] = ("edit", "tiny", "sd15"), compile: bool = False) -> None:
    """Print the table.

    Args:
        cases: Cases to start.
        compile: Also compile the presets' programs, which takes minutes.
    """
    for case in cases:
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (measured(case, cache, compile) for _ in range(2))
        print(f"{case:30} {'cold':>9} {'CPU':>9} {'warm':>9} {'CPU':>9}")
        for name, seconds in cold.items():
            print(f"  {name:28}" + "".join(f" {value:7.1f} s" for value in (*seconds, *warm[name])), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        clock = Clock()
        case, compile = sys.argv[2], bool(int(sys.argv[3]))
        edit(clock, compile) if case == "edit" else preset(case, clock, compile)
        print(json.dumps(clock.phases))
    else:
        tyro.cli(main)
