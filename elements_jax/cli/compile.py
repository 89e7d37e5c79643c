"""`elements compile PRESET --topology v5e:4x4`: the cost of a program on accelerators that are not present."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from configs import PRESETS
from elements_jax.cli.command import parsed
from elements_jax.config import ModelConfig
from train.config import Preset, TrainConfig
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


PROGRAMS = {
    "vae": "the training step of the VAE",
    "autoencoder": "the training step of stage 1",
    "diffusion": "the training step of stage 2",
    "sample": "the sampler that decodes `train.batch_size` images in `elements batch`",
}


@dataclass(frozen=True)
class Job:
    """For which devices to compile, and the sizes."""

    topology: str
    """Chip and layout of the slice: v4:2x2x2, v5e:4x4, v5p:2x2x2, v6e:4x4; or GPUs: h100:1, h100:8."""
    train: TrainConfig
    """The mesh, and the settings that determine the size of a step: batch_size, accumulate, remat."""
    config: ModelConfig
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
    parser = argparse.ArgumentParser(
        prog="elements compile",
        description=description,
        epilog="\n".join(f"{name:12} {what}" for name, what in PROGRAMS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("preset", choices=PRESETS, metavar="PRESET", help=", ".join(PRESETS))
    parser.add_argument(
        "settings",
        nargs=argparse.REMAINDER,
        help=f"--program {'|'.join(PROGRAMS)} (by default diffusion), and what `elements compile PRESET --help` lists",
    )
    chosen = parser.parse_args(argv)
    # Read first, because the other settings depend on it.
    chooser = argparse.ArgumentParser(prog=f"elements compile {chosen.preset}", add_help=False, allow_abbrev=False)
    chooser.add_argument("--program", choices=PROGRAMS, default="diffusion")
    known, settings = chooser.parse_known_args(chosen.settings)
    program, preset = known.program, PRESETS[chosen.preset]
    if (train := _train(preset, program)) is None:
        chooser.error(f"{chosen.preset} has no program {program}")
    job = parsed(
        Job,
        settings,
        f"elements compile {chosen.preset} --program {program}",
        description=f"{description} It is {PROGRAMS[program]}, or another: --program {'|'.join(PROGRAMS)}.",
        default=Job(topology=tyro.MISSING, train=train, config=preset.model),
    )
    devices = topology_devices(job.topology)
    if program == "sample":
        report = compile_sampler(job.config, job.train.batch_size, devices, quick=job.quick)
    else:
        report = _compile_what_fits(job, devices)
    print(report)
    if job.report is not None:
        report.save(job.report)
    return 0


def _train(preset: Preset, program: str) -> TrainConfig | None:
    """Return the preset's settings of a program; None if the preset lacks that stage."""
    if program != "sample":
        return getattr(preset, program)
    # A sampler has no partitions to exchange, so it may decode a single image.
    return preset.diffusion and replace(preset.diffusion, random_partition=False)


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


def _knobs(train: TrainConfig) -> str:
    names = [name for name in ("data_parallel", "fsdp", "accumulate", "remat") if hasattr(train, name)]
    return " ".join(f"--train.{name.replace('_', '-')} {getattr(train, name)}" for name in names)
