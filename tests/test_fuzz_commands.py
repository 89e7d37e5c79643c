"""Every command with every number out of its bounds, and with damaged files of every kind.

Each ends with one clear error and writes nothing. The numbers are given with inputs that do not exist, which shows that
they are checked first.
"""

import contextlib
import dataclasses
import gzip
import io
import json
import math
import shutil
import tarfile
import tempfile
import typing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from configs import PRESETS
from elements_jax.checkpoints.model_folder import read_model
from elements_jax.cli import compile
from elements_jax.cli.evaluation import benchmark, compare, evaluate, scenes_benchmark, study
from elements_jax.cli.main import HERE, main
from elements_jax.config import ModelConfig
from partition.inspection.command import Inspect
from partition.inspection.steps import Steps
from partition.job.job import Job as PartitionJob
from tests.helpers.models import write_random_model
from tests.helpers.records import SMALL

COMMANDS: dict[str, tuple[list[str], type]] = {
    "partition": (["partition", "photos", "OUT", "--segmenter", "grid"], PartitionJob),
    "partition inspect": (["partition", "inspect", "records"], Inspect),
    "partition steps": (["partition", "steps", "photo.png", "--out", "OUT", "--checkpoint", "weights"], Steps),
    "cache": (["cache", "records", "OUT", "--model", "model"], HERE["cache"]),
    "compile": (["compile", "tiny", "--topology", "v5e:4x4", "--report", "OUT"], compile.Job),
    "encode": (["encode", "photo.png", "OUT"], HERE["encode"]),
    "edit": (["edit", "photo.png", "--script", "edit.json", "--out", "OUT"], HERE["edit"]),
    "editor": (["editor", "--no-open"], HERE["editor"]),
    "batch": (["batch", "records", "scripts", "OUT", "--model", "model"], HERE["batch"]),
    "reconstruct": (["reconstruct", "photo.png", "OUT.png"], HERE["reconstruct"]),
    "scenes": (["scenes", "OUT"], HERE["scenes"]),
    "photo-scenes": (["photo-scenes", "records", "OUT"], HERE["photo-scenes"]),
    "compare": (["compare", "records", "scripts", "OUT", "--model", "model"], compare.Compare),
    "scenes-benchmark": (["scenes-benchmark", "records", "OUT", "--model", "model"], scenes_benchmark.ScenesBenchmark),
    "geobench-2d": (["benchmark", "geobench-2d", "folder", "OUT", "--model", "model"], benchmark.Geobench2d),
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
    """Return a command's options with one number, and whether it is an integer."""
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
    for prefix, kind in (("--train.", type(getattr(PRESETS["tiny"], stage))), ("--config.", ModelConfig))
    for name, whole in numbers(kind)
    if stage == "vae" or (kind is not ModelConfig and name.lstrip("-").replace("-", "_") in kind.__annotations__)
]  # settings of all stages are tried with one stage


def ends(arguments: list[str]) -> tuple[int, str]:
    """Return exit code and errors of a command."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(arguments)
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
    odd = [-(10**9), 10**30] if whole else [-1e9, math.nan, math.inf]
    # `tests/train/test_config.py` and `tests/test_config.py` try more values of configurations.
    for value in odd[:1] if arguments[0] in ("train", "compile") else odd:
        code, errors = ends([*arguments, option, *[str(value)] * (2 if option == "--train.betas" else 1)])
        assert code == 1, (option, value)
        [line] = errors.splitlines()
        of_a_script = f"{option.removeprefix('--').replace('-', '_')}: expected "  # as scripts name it
        names, must, _ = line.partition(" must ")
        assert (must and names.startswith("error: --") and option in names) or of_a_script in line, (
            option,
            value,
            line,
        )
        assert not list(folder.iterdir()), (option, value)


def noise(seed: int, side: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def encoded(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


SQUARE = [[4, 4, 12, 4, 12, 12, 4, 12]]
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 24, "height": 24}],
    "annotations": [{"image_id": 1, "segmentation": SQUARE}, {"image_id": 1, "segmentation": SQUARE}],
}
FILES = {
    "a.png": encoded(noise(0), "PNG"),
    "a.txt": b"a caption",
    "a.json": json.dumps({"aesthetic": 5.0}).encode(),
    "b.jpg": encoded(noise(1), "JPEG"),
    "c.gif": encoded(noise(2), "GIF"),
    "coco.json": json.dumps(COCO).encode(),
    "0.tar": tar_of({"x.png": encoded(noise(3), "PNG"), "x.txt": b"words", "y.jpg": encoded(noise(4), "JPEG")}),
    "0.tar.gz": gzip.compress(tar_of({"x.png": encoded(noise(3), "PNG"), "y.jpg": encoded(noise(4), "JPEG")})),
}


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Return the bytes truncated, with a few changed, or with some repeated or removed."""
    content = bytearray(content)
    places = st.integers(0, len(content) - 1)
    match data.draw(st.sampled_from(["cut", "flip", "double", "remove", "zeros"])):
        case "cut":
            del content[data.draw(places) :]
        case "flip":
            for place in data.draw(st.lists(places, min_size=1, max_size=4)):
                content[place] ^= 1 << data.draw(st.integers(0, 7))
        case kind:
            first, last = sorted((data.draw(places), data.draw(places)))
            part = content[first:last]
            content[first:last] = {"double": part * 2, "remove": b"", "zeros": bytes(len(part))}[kind]
    return bytes(content)


@settings(max_examples=150)
@given(st.data(), st.sampled_from(sorted(FILES)))
def test_partition_names_damaged_files_and_writes_the_others(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    source, out = folder / "photos", folder / "out"
    source.mkdir()
    tar = name.startswith("0.")
    for each, content in FILES.items():
        if each == name or not (tar or each.startswith("0.") or each == "coco.json"):
            (source / each).write_bytes(damaged(data, content) if each == name else content)
    masks = []
    if name == "coco.json":
        (source / name).rename(folder / name)
        masks = ["--masks", str(folder / name)]
    options = ["--segmenter", "grid", "--size", "16", "--grid", "2", "--workers", "1", "--filters.min-side", "1"]
    code, errors = ends(["partition", str(source), str(out), *options, *masks])
    assert code in (0, 1)
    assert "Traceback" not in errors
    if name == "coco.json" and code == 1:  # rejected completely
        [line] = errors.splitlines()
        assert line.startswith(f"error: {folder / name}: ")
        assert not out.exists()
    elif not tar:
        [path] = (out / "manifest").iterdir()
        outcomes = [json.loads(line) for line in path.read_text().splitlines()]
        assert {each["source_id"]: each["status"] for each in outcomes}.keys() == {"a.png", "b.jpg", "c.gif"}
        others = [each["status"] for each in outcomes if each["source_id"][0] != name[0]]
        assert others == ["written"] * len(others)


SCRIPT = {"version": 1, "edits": [{"edit": "move", "elements": [0], "by": [0.5, 0.0]}], "sampling": {"steps": 1}}


@settings(max_examples=150)
@given(st.data())
def test_damaged_scripts_are_one_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """The photograph does not exist, so a script that is still valid also gives one line."""
    folder = tmp_path_factory.mktemp("script")
    (folder / "edit.json").write_bytes(damaged(data, json.dumps(SCRIPT).encode()))
    arguments = [
        "edit",
        str(folder / "none.png"),
        "--script",
        str(folder / "edit.json"),
        "--out",
        str(folder / "out.png"),
    ]
    code, errors = ends(arguments)
    assert code == 1
    [line] = errors.splitlines()
    assert line.startswith("error: ")
    assert str(folder) in line
    assert not (folder / "out.png").exists()


@settings(max_examples=150)
@given(st.data(), st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "BMP", "AVIF"]))
def test_damaged_photographs_are_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, format: str
) -> None:
    folder = tmp_path_factory.mktemp("photograph")
    photo, script, out = (folder / name for name in ("photo.jpg", "edit.json", "out.png"))
    photo.write_bytes(damaged(data, encoded(noise(0), format)))
    script.write_text(json.dumps({"version": 1, "edits": []}))
    code, errors = ends(["edit", str(photo), "--script", str(script), "--out", str(out)])
    if code == 0:  # the damage is in metadata, or gives other pixels
        assert (errors, out.is_file()) == ("", True)
    else:
        assert code == 1
        [line] = errors.splitlines()
        assert line.startswith(f"error: {folder}")
        assert not out.exists()


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"), SMALL)


@settings(max_examples=60)
@given(st.data())
def test_damaged_models_are_one_error(small_model: Path, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    """Any file of the folder may be damaged, with or without its manifest."""
    paths = sorted(path.relative_to(small_model) for path in small_model.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    with tempfile.TemporaryDirectory() as folder:
        model = shutil.copytree(small_model, Path(folder) / "model")
        if data.draw(st.booleans()):
            for manifest in model.glob("elements/*.manifest.json"):
                manifest.unlink()
        if (model / path).is_file():
            (model / path).write_bytes(damaged(data, (model / path).read_bytes()))
        with contextlib.suppress(ValueError, FileNotFoundError):
            read_model(model)
