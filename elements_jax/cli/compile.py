"""`elements compile PRESET --topology v5e:4x4`: the cost of a training step on accelerators that are not present."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from configs import PRESETS
from elements_jax.cli.command import parsed
from elements_jax.config import ModelConfig
from train.config import DiffusionTrainConfig
from train.cost.ahead_of_time import DoesNotFit, changes, compile_sampler, compile_step, topology_devices
from train.cost.roofline import Report

OFFLINE_TPU_ENV = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
"""Answers that libtpu would otherwise request from a cloud machine's metadata server."""


@dataclass(frozen=True)
class Job:
    """What to compile, and for which devices."""

    topology: str
    """Chip and layout of the slice: v4:2x2x2, v5e:4x4, v5p:2x2x2, v6e:4x4; or h100:8."""
    train: DiffusionTrainConfig
    """The mesh, and the settings that determine the size of a step: batch_size, accumulate, remat."""
    config: ModelConfig
    program: Literal["train", "sample"] = "train"
    """The training step of stage 2, or the sampler that decodes `train.batch_size` images in `elements batch`."""
    quick: bool = True
    """Ask the TPU's compiler for less effort: minutes instead of tens of minutes."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file for the report."""


def main(argv: Sequence[str]) -> int:
    """Parse the command line, compile and report. Raises ValueError that names an option that is out of bounds, or says
    that nothing fits, and OSError."""
    for name, value in OFFLINE_TPU_ENV.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")  # the compiler needs no chip and must not look for one
    description = "Compile a program for accelerators that are not present, and report its cost."
    parser = argparse.ArgumentParser(prog="elements compile", description=description)
    presets = {name: (preset.model, preset.diffusion) for name, preset in PRESETS.items() if preset.diffusion}
    parser.add_argument("preset", choices=presets, metavar="PRESET", help=", ".join(presets))
    parser.add_argument("settings", nargs=argparse.REMAINDER, help="`elements compile PRESET --help` lists them")
    chosen = parser.parse_args(argv)
    model, train = presets[chosen.preset]
    job = parsed(
        Job,
        chosen.settings,
        f"elements compile {chosen.preset}",
        description=description,
        default=Job(topology=tyro.MISSING, train=train, config=model),
    )
    devices = topology_devices(job.topology)
    if job.program == "sample":
        report = compile_sampler(job.config, job.train.batch_size, devices, quick=job.quick)
    else:
        report = _compile_what_fits(job, devices)
    print(report)
    if job.report is not None:
        report.save(job.report)
    return 0


def _compile_what_fits(job: Job, devices: list[Any]) -> Report:
    """Compile the step as requested or, if it does not fit, the first change of it that does."""
    for train in (job.train, *changes(job.train, len(devices))):
        try:
            report = compile_step(job.config, train, devices, quick=job.quick)
        except DoesNotFit as error:
            print(f"does not fit: {_knobs(train)}: {error}", flush=True)
        else:
            if train != job.train:
                print(f"fits: {_knobs(train)}")
            return report
    raise DoesNotFit(f"a batch of {job.train.batch_size} does not fit in any way: use a smaller batch or more devices")


def _knobs(train: DiffusionTrainConfig) -> str:
    return (
        f"--train.data-parallel {train.data_parallel} --train.fsdp {train.fsdp} --train.accumulate {train.accumulate} "
        f"--train.remat {train.remat}"
    )
