"""`elements evaluate`: reconstructions of records, two folders of pictures, or a results folder, in numbers.

elements evaluate records RECORDS --model MODEL --decoder light
elements evaluate folders PICTURES TRUTHS
elements evaluate results RESULTS --records RECORDS
elements evaluate statistics PICTURES OUT.npz --inception FILE
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from elements_jax import TINY
from elements_jax.arguments import PathOrURL
from elements_jax.bounds import COUNT, require_within
from elements_jax.cli.command import exit_code, parsed, run_with_local_paths
from elements_jax.data.atomic import require_apart
from elements_jax.editing.script import DEFAULT_SAMPLING, Sampling
from elements_jax.evaluation.inputs import find_pictures, folder_pair, of_files, of_results
from elements_jax.evaluation.judge import Judge, MetricName, Samples, metric
from elements_jax.evaluation.reconstruction import Decoder, of_records, open_reconstructor
from elements_jax.evaluation.report import FEW, Score, numbers, save_json, save_pictures, table
from elements_jax.evaluation.results import not_run
from elements_jax.metrics.fid import Statistics, extractor
from elements_jax.metrics.lpips import has_weights
from elements_jax.parallel.sharding import make_mesh

USAGE = """\
usage: elements evaluate WHAT ...

  records      what a model gives back of held-out records
  folders      pictures next to others of the same names
  results      what methods made of the same edits, in a results folder
  statistics   what FID keeps of a folder of pictures, for --reference

`elements evaluate WHAT --help` says more.
"""
WHOLE: tuple[MetricName, ...] = ("mse", "psnr", "ssim")
OF_EDITS: tuple[MetricName, ...] = ("edited-psnr", "untouched-psnr", "target", "source")

File = Annotated[PathOrURL | None, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class JudgeOptions:
    """How to judge, and where to say it."""

    metrics: tuple[MetricName, ...] = ()
    """Of pictures: mse, psnr, ssim, lpips-alex, lpips-vgg; of edits too: edited-psnr, to the truth inside the edited
    region; untouched-psnr, to the input outside it; target and source, how much of the object arrived where it was
    sent and is still where it was (`elements_jax/evaluation/displacement.py`). By default all but lpips-vgg, and
    lpips-alex where its weights are installed."""
    inception: File = None
    """Weights of FID's network, pytorch-fid's pt_inception-2015-12-05-6726825d.pth or its tensors as safetensors; with
    them FID is computed too."""
    reference: File = None
    """What FID compares with, a file of `elements evaluate statistics`, pytorch-fid or clean-fid; by default the
    pictures' own truths (or, where an edit's is not known, its inputs)."""
    count: int | None = None
    """Judge so many pictures, the first ones; by default all."""
    batch_size: int = 8
    """Pictures that each device takes at once; it does not change the numbers, but for rounding."""
    out: File = None
    """JSON to write: the numbers, each with its N, and with them the settings, the version and commit of this code, and
    the model's checksum."""
    pictures: Annotated[PathOrURL | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write here a PNG of each method's worst, median and best pictures, by the first metric that it has."""

    def __post_init__(self) -> None:
        require_within(self, batch_size=COUNT, count=COUNT)

    def judge(
        self,
        every: Sequence[Samples],
        fid_name: str,
        settings: dict[str, Any],
        *,
        of_edits: bool = False,
        not_run: Sequence[str] = (),
    ) -> None:
        """Judge, print the table, and write what is asked for. Raises ValueError for what cannot be computed."""
        if self.out is not None:
            require_apart(self.out, self.inception, self.reference)
        mesh = make_mesh(-1, 1, jax.local_devices())
        lpips: tuple[MetricName, ...] = ("lpips-alex",) if has_weights() else ()
        chosen = self.metrics or WHOLE + lpips + OF_EDITS * of_edits
        if self.reference is not None and self.inception is None:
            raise ValueError("--reference is for FID, which needs --inception")
        judge = Judge(
            {name: metric(name) for name in chosen},
            mesh,
            self.batch_size * mesh.size,
            None if self.inception is None else extractor(self.inception),
            None if self.reference is None else Statistics.load(self.reference),
        )
        found: list[Score] = []
        notes: list[str] = []
        for samples in every:
            count = _count(self.count, samples)
            verdict = judge(samples, count)
            of_method = numbers(samples, verdict, fid_name)
            if missing := set(self.metrics) - {number.metric for number in of_method}:
                raise ValueError(f"{samples.method}: no picture has what {', '.join(sorted(missing))} is of")
            found += of_method
            if verdict.reference and (fewer := min(count, verdict.reference.count or count)) < FEW:
                notes = [
                    f"{fid_name} is of {fewer} pictures, fewer than its {FEW} features: it comes out too large, and "
                    "compares with none but those of the same N"
                ]
            if self.pictures is not None:
                path, by = save_pictures(self.pictures, samples, verdict, judge)
                print(f"{path}: worst, median and best by {by}")
        print(table(found, not_run))
        for note in notes:
            print(f"warning: {note}")
        if self.out is not None:
            settings = {**settings, "metrics": chosen, "devices": f"{mesh.size} x {jax.devices()[0].device_kind}"}
            save_json(self.out, found, settings, notes)
            print(f"{self.out}: {len(found)} numbers")

    def settings(self) -> dict[str, Any]:
        """As JSON has them."""
        named = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return {name: value for name, value in named.items() if value is not None and name not in ("out", "pictures")}


@dataclass(frozen=True)
class Records:
    """Reconstruct held-out records with a model, and compare with the records' own pictures."""

    records: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS")]
    """Folder of records, as `elements partition` writes it."""
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Model folder or, with the diffusion decoder, a name on the Hugging Face hub; by default the tiny one of this
    package. Of the folder no more is read than the decoder takes."""
    decoder: Decoder = "diffusion"
    """Stage 2; stage 1's light decoder; or the VAE alone, encoder and decoder, without elements."""
    split: str | None = None
    """Of the records; by default val, or the only one."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING
    common: Annotated[JudgeOptions, tyro.conf.arg(name="")] = JudgeOptions()

    def run(self) -> None:
        """Reconstruct and judge."""
        sampling = self.sampling.checked()
        mesh = make_mesh(-1, 1, jax.local_devices())
        reconstructor = open_reconstructor(self.model or str(TINY), self.decoder, sampling, mesh)
        samples = of_records(self.records, self.split, reconstructor, self.decoder, self.decoder != "vae")
        settings = {
            "records": str(self.records),
            "model": self.model or TINY.name,
            "decoder": self.decoder,
            **reconstructor.settings,
            **self.common.settings(),
        }
        fid_name = "rfid" if self.common.reference is None else "fid"
        self.common.judge([samples], fid_name, settings)


@dataclass(frozen=True)
class Folders:
    """Compare pictures with those of the same names, but for the suffix, in another folder."""

    folder: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURES")]
    """Folder of pictures to judge."""
    truths: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTHS")]
    """Folder of what they should be."""
    common: Annotated[JudgeOptions, tyro.conf.arg(name="")] = JudgeOptions()

    def run(self) -> None:
        """Judge."""
        settings = {"folder": str(self.folder), "truths": str(self.truths), **self.common.settings()}
        self.common.judge([folder_pair(self.folder, self.truths)], "fid", settings)


@dataclass(frozen=True)
class Results:
    """Compare what methods made of the same edits: with the truth, where it is known, the input and the object."""

    results: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS")]
    """Results folder (`elements_jax/evaluation/results.py` says how it is laid out)."""
    records: Annotated[PathOrURL | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The records that were edited, for the metrics target and source."""
    methods: tuple[str, ...] = ()
    """By default all that the folder has."""
    common: Annotated[JudgeOptions, tyro.conf.arg(name="")] = JudgeOptions()

    def run(self) -> None:
        """Judge."""
        settings = {"results": str(self.results), **self.common.settings()}
        if self.records is not None:
            settings["records"] = str(self.records)
        every = of_results(self.results, self.methods, self.records)
        self.common.judge(every, "fid", settings, of_edits=True, not_run=() if self.methods else not_run(self.results))


@dataclass(frozen=True)
class FIDStatistics:
    """Compute once what FID keeps of a folder of pictures."""

    folder: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURES")]
    """Folder of pictures of one size."""
    out: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """File to write, NAME.npz."""
    inception: Annotated[PathOrURL, tyro.conf.arg(metavar="FILE")]
    """As in the other commands."""
    batch_size: int = 8
    """Pictures that each device takes at once."""

    def __post_init__(self) -> None:
        require_within(self, batch_size=COUNT)

    def run(self) -> None:
        """Compute and write."""
        require_apart(self.out, self.inception)
        mesh = make_mesh(-1, 1, jax.local_devices())
        samples = of_files(self.folder.name, {"picture": find_pictures(self.folder)}, reference="picture")
        judge = Judge({}, mesh, self.batch_size * mesh.size, extractor(self.inception))
        statistics = judge(samples, len(samples.names)).statistics
        assert statistics is not None
        statistics.save(self.out)
        print(f"{self.out}: of {statistics.count} pictures")


def main(argv: Sequence[str]) -> int:
    """Run one command. Errors of the user's making end with one line on stderr and exit code 1."""
    commands = {"records": Records, "folders": Folders, "results": Results, "statistics": FIDStatistics}
    name, *rest = list(argv) or ["--help"]
    if name not in commands:
        asked_for_help = name in ("-h", "--help")
        print(USAGE, end="", file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    chosen = commands[name]
    return exit_code(lambda: run_with_local_paths(parsed(chosen, rest, f"elements evaluate {name}")))


def _count(asked: int | None, samples: Samples) -> int:
    """How many pictures to judge. Raises ValueError where there are not as many."""
    there = len(samples.names)
    if asked is not None and not 1 <= asked <= there:
        raise ValueError(f"--count must be from 1 to {there}, the number of pictures, got {asked}")
    return asked or there
