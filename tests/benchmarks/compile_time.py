"""Seconds until the sampler and the training step are ready: traced and lowered, then compiled, or read from a cache.

    python tests/benchmarks/compile_time.py --presets tiny

Each figure is from a fresh process. The cache is JAX's own (JAX_COMPILATION_CACHE_DIR), filled by the process before.
Programs are compiled from shapes, without parameters.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any, Literal

import numpy as np
import tyro

from elements_jax.diffusion.samplers import ddim_sample
from elements_jax.models.method import jit_decode
from elements_jax.models.networks import Networks
from elements_jax.parallel.sharding import make_mesh
from elements_jax.parallel.xla_flags import prefer_own_convolutions
from train.config import DiffusionTrainConfig
from train.cost.ahead_of_time import AbstractStage, sampler_arguments, step_arguments
from train.state import make_optimizer
from train.step import jit_step

PROGRAMS = ("sampler", "training step")


def sampler(config, train: DiffusionTrainConfig) -> Any:
    """Trace the program of `ElementsPipeline.decode` for one image, with the preset's steps."""
    mesh, networks = make_mesh(1, 1), Networks(config)
    shared, batch = sampler_arguments(networks, 1, mesh)
    return jit_decode(networks, mesh).trace(shared, batch, steps=config.diffusion.sample_steps, sampler=ddim_sample)


def training_step(config, train: DiffusionTrainConfig) -> Any:
    """Trace the loop's step of stage 2 at the preset's batch size, on one device."""
    mesh, stage = make_mesh(1, 1), AbstractStage(config, train)
    return jit_step(stage, make_optimizer(train), train, mesh).trace(*step_arguments(stage, train, mesh))


def measure(preset: str, program: str) -> dict[str, float]:
    """Return the seconds to lower and to compile in this process."""
    prefer_own_convolutions()
    module = importlib.import_module(f"configs.{preset}")
    ticks = [time.perf_counter()]
    lowered = {"sampler": sampler, "training step": training_step}[program](module.MODEL, module.DIFFUSION).lower()
    ticks.append(time.perf_counter())
    lowered.compile()
    ticks.append(time.perf_counter())
    return dict(zip(("lower", "compile"), np.diff(ticks), strict=True))


def main(presets: tuple[Literal["tiny", "sd15"], ...] = ("tiny", "sd15")) -> None:
    """Print a line for each program.

    Args:
        presets: Presets whose programs are compiled.
    """
    print(f"{'':26} {'lower':>9} {'compile':>9}   from the cache: {'lower':>9} {'compile':>9}")
    for preset in presets:
        for program in PROGRAMS:
            with tempfile.TemporaryDirectory() as cache:
                environment = os.environ | {
                    "JAX_COMPILATION_CACHE_DIR": cache,
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                }
                command = [sys.executable, __file__, "--one", preset, program]
                cold, cached = (
                    json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
                    for _ in range(2)
                )
            print(
                f"{preset + ', ' + program:26} {cold['lower']:7.1f} s {cold['compile']:7.1f} s"
                f"   {'':15} {cached['lower']:7.1f} s {cached['compile']:7.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        tyro.cli(main)
