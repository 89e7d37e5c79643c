"""Every command with every number out of its bounds, and with damaged files of every kind.

Each ends with one clear error and writes nothing. The numbers are given with inputs that do not exist, so that they are
also known to be checked first.
"""

import contextlib
import dataclasses
import io
import math
import typing
from pathlib import Path

import pytest

from configs import PRESETS
from elements_jax.cli import benchmark, compare, evaluate, main, scenes_benchmark, study
from partition.job.job import Job as PartitionJob

COMMANDS: dict[str, tuple[list[str], type]] = {
    "partition": (["partition", "photos", "OUT", "--segmenter", "grid"], PartitionJob),
    "cache": (["cache", "records", "OUT", "--model", "model"], main.Cache),
    "encode": (["encode", "photo.png", "OUT"], main.Encode),
    "edit": (["edit", "photo.png", "--script", "edit.json", "--out", "OUT"], main.Edit),
    "editor": (["editor", "--no-open"], main.Editor),
    "batch": (["batch", "records", "scripts", "OUT", "--model", "model"], main.Batch),
    "reconstruct": (["reconstruct", "photo.png", "OUT"], main.Reconstruct),
    "scenes": (["scenes", "OUT"], main.Scenes),
    "photo-scenes": (["photo-scenes", "records", "OUT"], main.PhotoScenes),
    "compare": (["compare", "records", "scripts", "OUT", "--model", "model"], compare.Compare),
    "scenes-benchmark": (["scenes-benchmark", "records", "OUT", "--model", "model"], scenes_benchmark.ScenesBenchmark),
    "objmove-a": (["benchmark", "objmove-a", "folder", "OUT", "--model", "model"], benchmark.ObjmoveA),
    "study make": (["study", "make", "results", "OUT"], study.Make),
    "study analyse": (["study", "analyse", "key.json", "answers.json", "--out", "OUT"], study.Analyse),
    "study grid": (["study", "grid", "results", "OUT"], study.Grid),
    "evaluate records": (["evaluate", "records", "records"], evaluate.Records),
    "evaluate folders": (["evaluate", "folders", "one", "other"], evaluate.Folders),
    "evaluate results": (["evaluate", "results", "results"], evaluate.Results),
    "evaluate statistics": (
        ["evaluate", "statistics", "one", "OUT", "--inception", "weights"],
        evaluate.FIDStatistics,
    ),
}
STAGES = ("vae", "autoencoder", "diffusion")


def numbers(kind: typing.Any, prefix: str = "--") -> typing.Iterator[tuple[str, bool]]:
    """The options of a command that take one number, and whether it is a whole one."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], field.name.replace("_", "-")
        metadata = getattr(hint, "__metadata__", ())
        if metadata:
            hint = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(hint):
            flat = any(getattr(each, "name", None) == "" for each in metadata)
            yield from numbers(hint, prefix if flat else f"{prefix}{name}.")
            continue
        options = {
            typing.get_args(each)[0] if hasattr(each, "__metadata__") else each for each in typing.get_args(hint)
        }
        for number in {hint, *options} & {int, float}:
            yield f"{prefix}{name}", number is int


OPTIONS = [(arguments, *option) for arguments, kind in COMMANDS.values() for option in numbers(kind)]
OPTIONS += [
    (["train", stage, "tiny", "--data", "records", "--model", "OUT"], name.replace("--", prefix, 1), whole)
    for stage in STAGES
    for prefix, kind in (
        ("--train.", type(getattr(PRESETS["tiny"], stage))),
        ("--config.", type(PRESETS["tiny"].model)),
    )
    for name, whole in numbers(kind)
]


def ends(arguments: list[str]) -> tuple[int, str]:
    """Exit code and errors of a command."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main.main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return code, errors.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Path]:
    folder = tmp_path_factory.mktemp("empty")
    with contextlib.chdir(folder):
        yield folder


@pytest.mark.parametrize(
    ("arguments", "option", "whole"), OPTIONS, ids=[f"{' '.join(a[:2])} {o}" for a, o, _ in OPTIONS]
)
def test_numbers_out_of_their_bounds_are_named(arguments: list[str], option: str, whole: bool, folder: Path) -> None:
    odd = [-(10**9), 10**20, 10**30] if whole else [-1e9, math.nan, math.inf, -math.inf]
    for value in odd:
        code, errors = ends([*arguments, option, str(value)])
        assert code in (1, 2), (option, value)
        name = option.rpartition(".")[2].lstrip("-")
        assert name in errors.replace("_", "-"), (option, value, errors)
        assert "Traceback" not in errors
        assert not list(folder.iterdir()), (option, value)
