"""`elements evaluate`: metrics of reconstructions, of two folders of images, or of a results folder.

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
from elements_jax.bounds import COUNT, FieldError, require_within
from elements_jax.cli.command import exit_code, parsed, run_with_local_paths
from elements_jax.data.atomic import require_apart
from elements_jax.data.object_store import is_url
from elements_jax.editing.script import DEFAULT_SAMPLING, Sampling
from elements_jax.evaluation.inputs import find_pictures, folder_pair, kept, of_files, of_results
from elements_jax.evaluation.judge import Judge, MetricName, Samples, metric
from elements_jax.evaluation.reconstruction import Decoder, of_records, open_reconstructor
from elements_jax.evaluation.report import FEW, Score, numbers, save_json, save_pictures, table
from elements_jax.evaluation.results import not_run
from elements_jax.metrics.fid import Statistics, extractor
from elements_jax.metrics.lpips import has_weights
from elements_jax.parallel.sharding import make_mesh

USAGE = """\
usage: elements evaluate WHAT ...

  records      reconstructions of held-out records
  folders      images compared with images of the same names
  results      a results folder: several methods on the same edits
  statistics   FID statistics of a folder of images, for --reference

`elements evaluate WHAT --help` says more.
"""
WHOLE: tuple[MetricName, ...] = ("mse", "psnr", "ssim")
OF_EDITS: tuple[MetricName, ...] = ("edited-psnr", "untouched-psnr", "arrived-ssim", "left-behind-ssim")

File = Annotated[PathOrURL | None, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class JudgeOptions:
    """Which metrics to compute, and where to write them."""

    metrics: tuple[MetricName, ...] = ()
    """For images: mse, psnr, ssim, lpips-alex, lpips-vgg. For edits also: edited-psnr, against the truth inside the
    edited region; untouched-psnr, against the input outside it; arrived-ssim and left-behind-ssim, how much of the
    object is at its new place and how much is still at its old one (`elements_jax/evaluation/displacement.py`). By
    default all except lpips-vgg; lpips-alex only if its weights are installed."""
    inception: File = None
    """Weights of FID's network: pytorch-fid's pt_inception-2015-12-05-6726825d.pth, or its tensors as safetensors. With
    them FID is computed, too."""
    reference: File = None
    """Reference statistics for FID: a file of `elements evaluate statistics`, pytorch-fid or clean-fid. By default the
    truths of the images (or the inputs of edits whose truth is unknown)."""
    count: int | None = None
    """Number of images to evaluate, from the first; by default all."""
    batch_size: int = 8
    """Images processed at once per device; affects the metrics only by rounding."""
    out: File = None
    """JSON file for the metrics, each with its N, and for the settings, the version and commit of this code, and the
    model's checksum."""
    pictures: Annotated[PathOrURL | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for a PNG of each method's worst, median and best images by its first metric."""

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
        """Compute the metrics, print them and write the requested files. Raises ValueError if that is impossible."""
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
                raise ValueError(f"{samples.method}: no image has the inputs of {', '.join(sorted(missing))}")
            found += of_method
            if verdict.reference and (fewer := min(count, verdict.reference.count or count)) < FEW:
                notes = [
                    f"{fid_name} uses {fewer} images, fewer than its {FEW} features: it is biased upwards and "
                    "comparable only at the same N"
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
            print(f"{self.out}: {len(found)} metrics")

    def settings(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        named = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return {name: value for name, value in named.items() if value is not None and name not in ("out", "pictures")}


@dataclass(frozen=True)
class Records:
    """Reconstruct held-out records with a model, and compare with the images of the records."""

    records: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS")]
    """Folder of records written by `elements partition`."""
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Model folder or, with the diffusion decoder, a name on the Hugging Face hub; by default the bundled tiny
    model. Only the networks that the decoder needs are read."""
    decoder: Decoder = "diffusion"
    """Decoder of stage 2; light decoder of stage 1; or only the VAE, encoder and decoder, without elements."""
    split: str | None = None
    """Split of the records; by default val, or the only one."""
    name: str | None = None
    """Name of the method in tables and figures; by default the decoder's."""
    add_to: Annotated[PathOrURL | None, tyro.conf.arg(metavar="RESULTS")] = None
    """Local results folder that also receives the records and their reconstructions, so that `elements study grid`
    shows several models next to each other, as in Figure 12."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING
    common: Annotated[JudgeOptions, tyro.conf.arg(name="")] = JudgeOptions()

    def __post_init__(self) -> None:
        if is_url(self.add_to):
            raise FieldError(self, ("add_to",), f"must be a local folder, got {self.add_to}")
        if self.name is not None and (not self.name or Path(self.name).name != self.name):
            raise FieldError(self, ("name",), f"must be usable as a file name, got {self.name!r}")

    def run(self) -> None:
        """Reconstruct and evaluate."""
        sampling = self.sampling.checked()
        mesh = make_mesh(-1, 1, jax.local_devices())
        reconstructor = open_reconstructor(self.model or str(TINY), self.decoder, sampling, mesh)
        method = self.name or self.decoder
        samples = of_records(self.records, self.split, reconstructor, method, self.decoder != "vae")
        if self.add_to is not None:
            samples = kept(samples, self.add_to, _count(self.common.count, samples))
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
    """Compare the images of one folder with those of the same names in another; suffixes may differ."""

    folder: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURES")]
    """Folder of images to evaluate."""
    truths: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTHS")]
    """Folder of the true images."""
    common: Annotated[JudgeOptions, tyro.conf.arg(name="")] = JudgeOptions()

    def run(self) -> None:
        """Judge."""
        settings = {"folder": str(self.folder), "truths": str(self.truths), **self.common.settings()}
        self.common.judge([folder_pair(self.folder, self.truths)], "fid", settings)


@dataclass(frozen=True)
class Results:
    """Compare the results of several methods on the same edits with the input, the object and, if known, the truth."""

    results: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS")]
    """Results folder (laid out as in `elements_jax/evaluation/results.py`)."""
    records: Annotated[PathOrURL | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the edited records, for the metrics arrived-ssim and left-behind-ssim."""
    methods: tuple[str, ...] = ()
    """Methods to compare; by default all in the folder."""
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
    """Compute the FID statistics of a folder of images."""

    folder: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURES")]
    """Folder of images of equal size."""
    out: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """File to write, NAME.npz."""
    inception: Annotated[PathOrURL, tyro.conf.arg(metavar="FILE")]
    """Weights of FID's network, as in the other commands."""
    batch_size: int = 8
    """Images processed at once per device."""

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
        print(f"{self.out}: statistics of {statistics.count} images")


def main(argv: Sequence[str]) -> int:
    """Run one command. User errors print one line to stderr and exit with code 1."""
    commands = {"records": Records, "folders": Folders, "results": Results, "statistics": FIDStatistics}
    name, *rest = list(argv) or ["--help"]
    if name not in commands:
        asked_for_help = name in ("-h", "--help")
        print(USAGE, end="", file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    chosen = commands[name]
    return exit_code(lambda: run_with_local_paths(parsed(chosen, rest, f"elements evaluate {name}")))


def _count(asked: int | None, samples: Samples) -> int:
    """Return the number of images to evaluate. Raises ValueError if there are not as many."""
    there = len(samples.names)
    if asked is not None and not 1 <= asked <= there:
        raise ValueError(f"--count must be from 1 to {there}, the number of images, got {asked}")
    return asked or there
