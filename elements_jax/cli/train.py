"""`elements train STAGE PRESET --data RECORDS --model FOLDER`."""

import argparse
import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from configs import PRESETS
from elements_jax.arguments import PathOrURL
from elements_jax.cli.command import parsed, sentence_of
from elements_jax.config import ModelConfig
from elements_jax.data.lock import locked
from elements_jax.data.object_store import local_copy
from elements_jax.parallel.program_cache import keep_programs
from elements_jax.parallel.xla_flags import prefer_own_convolutions
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, TrainConfig, VAETrainConfig

if TYPE_CHECKING:
    from train.stage import Stage

START = (
    "A run starts from the first available of: the newest checkpoint of its own folder; the checkpoint given by "
    "--resume; the stage's networks in the model folder, to which --init copies those of another model; random "
    "parameters. Thus the same command resumes an interrupted run."
)
STAGES = {
    "vae": "the KL autoencoder of images, unless the model uses Stable Diffusion's",
    "autoencoder": "stage 1: content encoder and transformer decoder (Section 3.2)",
    "diffusion": "stage 2: the diffusion decoder (Section 3.3)",
}


@dataclass(frozen=True)
class Job:
    """What to train, on which data, and how."""

    data: tuple[PathOrURL, ...]
    """Folders of records written by `elements partition`, read as one set; for example one folder per
    segmenter. They may contain the same images."""
    model: PathOrURL
    """Model folder: earlier stages' networks are read from it, and this stage's are written to it. The run itself
    (checkpoints, TensorBoard events, samples) is stored in its `runs/STAGE` and resumes from there."""
    train: TrainConfig
    config: ModelConfig
    init: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Model to start from; networks that the model folder lacks are copied from it. Stable Diffusion 1.5 (a folder in
    diffusers' layout, the original single file, or a repository on the Hugging Face hub), or another model folder,
    even one with only stage 1."""
    resume: Annotated[PathOrURL | None, tyro.conf.arg(metavar="RUN")] = None
    """Another run of this stage whose state and position in the data to resume from: its folder (`MODEL/runs/STAGE`),
    for its newest checkpoint; the folder of one checkpoint in it (`checkpoints/STEP`); or the file written by
    --train.travel. The new run writes its own checkpoints."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and train. User errors print one line to stderr and exit with code 1. Raises ValueError
    that names an option that is out of bounds."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="elements train",
        description="Train one stage of a model. `elements train STAGE PRESET --help` lists every setting.",
        epilog="\n".join(f"{name:12} {what}" for name, what in STAGES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("preset", choices=PRESETS, metavar="PRESET", help=", ".join(PRESETS))
    parser.add_argument("settings", nargs=argparse.REMAINDER, help="--data, --model, and any setting of the preset")
    chosen = parser.parse_args(argv)

    preset = PRESETS[chosen.preset]
    if (train := getattr(preset, chosen.stage)) is None:
        stages = ", ".join(stage for stage in STAGES if getattr(preset, stage) is not None)
        parser.error(f"{chosen.preset} is a preset of {stages}, not of {chosen.stage}")
    job = parsed(
        Job,
        chosen.settings,
        f"elements train {chosen.stage} {chosen.preset}",
        description=f"Train {STAGES[chosen.stage]}. {START}",
        default=Job(data=tyro.MISSING, model=tyro.MISSING, train=train, config=preset.model),
    )
    prefer_own_convolutions()
    keep_programs()
    from elements_jax.parallel import hosts
    from train.mirror import mirrored
    from train.preemption import Preemption

    try:
        hosts.initialize_distributed()
        with contextlib.redirect_stdout(sys.stdout if hosts.is_main_process() else None):
            with mirrored(job.model) as model:
                resumed = None if job.resume is None else local_copy(job.resume)
                job = replace(job, data=tuple(map(local_copy, job.data)), model=model, resume=resumed)
                step = run(chosen.stage, job, began)
            if Preemption.ended:
                name = signal.Signals(Preemption.ended).name
                print(f"ended by {name} after step {step}, which is saved; run the same command to resume")
    except (OSError, ValueError, FloatingPointError) as error:
        hosts.abort(f"error: {sentence_of(error)}")
        print(f"error: {sentence_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the first step
        hosts.abort("interrupted")
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BaseException:
        hosts.abort(traceback.format_exc())
        raise
    return 128 + Preemption.ended if Preemption.ended else 0


def run(stage: str, job: Job, began: float | None = None) -> int:
    """Run one stage of training and return its last step.

    `began` is the start of the command by `time.monotonic`, if its minutes are limited; by default now.
    """
    began = time.monotonic() if began is None else began
    from elements_jax.parallel import hosts
    from train.input.stored import require_fit, require_masks

    require_fit(job.data, "train", job.config.elements)
    if isinstance(job.train, AutoencoderTrainConfig | DiffusionTrainConfig) and job.train.element_dropout:
        require_masks(job.data, "train", job.train.element_dropout)
    own = job.model / "runs" / stage
    with locked(own, f"elements train {stage}") if hosts.is_main_process() else contextlib.nullcontext():
        return _run(stage, job, began, own)


def _run(stage: str, job: Job, began: float, own: Path) -> int:
    """Run the stage in its own folder."""
    from elements_jax.parallel import hosts
    from train.input.cache import require_cached
    from train.loop import fit
    from train.stages.autoencoder import AutoencoderStage
    from train.stages.diffusion import DiffusionStage
    from train.stages.diffusion_unfrozen import UnfrozenStage
    from train.stages.vae import VAEStage
    from train.stages.vae_adversarial import AdversarialVAEStage
    from train.start import open_folder, start_from, start_text

    if hosts.is_main_process():
        if job.init is not None:
            start_from(job.init, job.model, job.config)
        open_folder(job.model, job.config)
        if isinstance(job.train, DiffusionTrainConfig) and job.train.text_from_scratch:
            start_text(job.config, job.train.seed, job.model, job.data)
    hosts.barrier("the model folder is made")
    made: Stage
    match stage, job.train:
        case "vae", VAETrainConfig() as train:
            of_vae = AdversarialVAEStage if train.adversarial_weight else VAEStage
            made = of_vae(job.config, train, job.model)
        case "autoencoder", AutoencoderTrainConfig() as train:
            made = AutoencoderStage(job.config, train, job.model)
        case "diffusion", DiffusionTrainConfig() as train:
            of_diffusion = DiffusionStage if train.encoder == "frozen" else UnfrozenStage
            made = of_diffusion(job.config, train, job.model)
            if train.cached:
                for records in job.data:
                    require_cached(records, job.model)
        case _:
            raise ValueError(f"no such stage: {stage}; expected one of {list(STAGES)}")
    state = fit(made, job.train, job.data, own, job.resume, began)
    return int(state["step"])
