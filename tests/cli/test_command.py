"""How commands end: one line and an exit code, whatever happens."""

import dataclasses
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from elements_jax import __version__
from elements_jax.bounds import FieldError, require_within
from elements_jax.cli.command import Terminated, orderly_termination, parsed, run_to_end
from elements_jax.cli.main import main
from tests.helpers.photographs import picture, saved
from tests.helpers.records import write_records


@dataclasses.dataclass(frozen=True)
class Inner:
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise FieldError(self, ("low", "high"), f"must rise, got {self.low} and {self.high}")


@dataclasses.dataclass(frozen=True)
class Wide:
    width: float = 1.0

    def __post_init__(self) -> None:
        require_within(self, width=(0, math.inf))


@dataclasses.dataclass(frozen=True)
class Outer:
    """A command with a nested part, a flat part, and its own number."""

    by_name: Inner = dataclasses.field(default_factory=Inner)
    flat: Annotated[Wide, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Wide)
    a_number: int = 1

    def __post_init__(self) -> None:
        require_within(self, a_number=(1, 9))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("--a-number 0", "--a-number must be from 1 to 9, got 0"),
        ("--width nan", "--width must be at least 0, got nan"),
        ("--by-name.low 2", "--by-name.low and --by-name.high must rise, got 2 and 1"),
    ],
)
@pytest.mark.parametrize("command", [Outer, Outer | Wide], ids=["alone", "one of several"])
def test_a_value_out_of_its_bounds_names_its_option(command, line, error, capsys):
    words = ["outer", *line.split()] if command is not Outer else line.split()
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        parsed(command, words, "elements")
    assert capsys.readouterr() == ("", "")


def test_invalid_command_line_shows_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(Outer, ["--a-number", "many"], "elements")
    assert stop.value.code == 2
    assert "--a-number INT" in capsys.readouterr().err


def test_an_error_of_a_field_comes_back_from_another_process():
    error = pickle.loads(pickle.dumps(FieldError(Inner, ("low", "high"), "must rise")))
    assert (str(error), error.owner, error.names) == ("low and high must rise", Inner, ("low", "high"))


BASE_ALONE = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "segment_anything", "pycocotools", "fastapi", "uvicorn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from elements_jax.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def raising(error: BaseException):
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("x must be 1"), 1, "error: x must be 1"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), 1, "error: a.png: no such file or directory"),
        (OSError("our own sentence"), 1, "error: our own sentence"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "ended by SIGTERM"),
        (
            ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"),
            1,
            "error: this needs the package torch, which is not installed: pip install 'elements-jax[partition]'",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, code, line, capsys):
    assert run_to_end(raising(error)) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_a_warning_is_one_line(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # the tests' own filter makes errors of warnings
        assert run_to_end(lambda: warnings.warn("a prompt is truncated", stacklevel=1)) == 0
    assert capsys.readouterr().err == "warning: a prompt is truncated\n"


def test_an_error_of_ours_is_not_hidden():
    for error in (KeyError("x"), ModuleNotFoundError("No module named 'trian'", name="trian")):
        with pytest.raises(type(error)):
            run_to_end(raising(error))


def test_what_a_command_returns_is_its_code():
    assert [run_to_end(lambda code=code: code) for code in (None, 0, 3)] == [0, 0, 3]


def test_sigterm_lets_a_command_clean_up(tmp_path):
    before, ordered = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with orderly_termination():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            finally:
                ordered.append(True)

    assert run_to_end(run) == 128 + signal.SIGTERM
    assert ordered
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["partition", "--help"], None),
        (["partition", "photos", "out", "--checkpoint", "sam.pt"], "partition"),
        (["editor", "--no-open"], "editor"),
    ],
)
def test_a_base_install_names_the_extra(arguments, extra, tmp_path: Path):
    (tmp_path / "sam.pt").write_bytes(b"x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", BASE_ALONE, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    if extra is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        [line] = [line for line in done.stderr.splitlines() if "partition:" not in line]  # of the progress bar
        assert line.endswith(f"which is not installed: pip install 'elements-jax[{extra}]'")


@pytest.mark.parametrize("arguments", ["--help", "scenes --help"])
def test_a_closed_output_pipe_is_not_an_error(arguments):
    command = f"{sys.executable} -m elements_jax.cli {arguments} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == ""


def test_an_unknown_command_names_the_one_meant(capsys):
    assert main(["edti", "photo.png"]) == 2
    assert capsys.readouterr().err == "error: edti is not a command; did you mean edit? `elements --help` lists them\n"
    assert main(["xyz"]) == 2
    assert capsys.readouterr().err == "error: xyz is not a command; `elements --help` lists them\n"


def test_the_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"elements-jax {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    ["encode photo.png out.npz", "reconstruct photo.png out.png", "edit photo.png --script edit.json", "editor"],
)
def test_a_missing_checkpoint_is_named_before_a_model_is_read(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(saved(picture(), "PNG"))
    delete = {"edit": "delete", "object": {"point": [0.5, 0.5]}}
    Path("edit.json").write_text(json.dumps({"version": 1, "edits": [delete]}))
    assert main([*arguments.split(), "--checkpoint", "nothere", "--model", "no model either"]) == 1
    assert capsys.readouterr().err.startswith("error: --checkpoint: no such file: nothere")


@pytest.mark.parametrize("arguments", ["encode nothere.png out.npz", "reconstruct nothere.png out.png"])
def test_a_missing_photograph_is_named_before_a_model_is_read(arguments, capsys):
    assert main([*arguments.split(), "--model", "no model either"]) == 1
    assert capsys.readouterr().err == "error: nothere.png: no such file or directory\n"


@pytest.mark.parametrize(
    "arguments",
    [
        "batch records PIPE out --model tiny",
        "study analyse PIPE PIPE --out out.json",
        "evaluate folders pictures pictures --inception PIPE",
        "evaluate statistics pictures out.npz --inception PIPE",
        "evaluate folders pictures PIPE --inception weights.pth",
        "partition inspect PIPE",
        "partition PIPE out --segmenter grid",
        "encode PIPE out.npz",
        "edit photo.png --script PIPE",
    ],
)
def test_a_pipe_in_place_of_a_file_is_refused(arguments, tmp_path, monkeypatch, capsys):
    """It would be waited for, forever."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.lst")
    Path("photo.png").write_bytes(saved(picture(), "PNG"))
    Path("pictures").mkdir()
    Path("pictures", "a.png").write_bytes(saved(picture(), "PNG"))
    if "records" in arguments:
        write_records(tmp_path / "records")
    assert main(arguments.replace("PIPE", "pipe.lst").split()) == 1
    assert "pipe.lst" in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_platform_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr("elements_jax.cli.command._jax_starts", lambda: False)
    assert run_to_end(raising(AssertionError())) == 1
    assert capsys.readouterr().err == "error: JAX finds no devices for JAX_PLATFORMS=cuda\n"
    monkeypatch.setattr("elements_jax.cli.command._jax_starts", lambda: True)
    with pytest.raises(AssertionError):
        run_to_end(raising(AssertionError()))
