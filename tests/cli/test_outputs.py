"""Commands never overwrite their input, and write the format that the file name says."""

import json
from pathlib import Path

import numpy as np
import pytest

from elements_jax.cli.main import main
from elements_jax.data.encoded import write_encoded
from tests.helpers.photographs import picture, saved


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of every kind that commands read; their contents matter only if they are read before the check."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "photo-numbers.png"):
        Path(name).write_bytes(saved(picture(), "PNG"))
    Path("edit.json").write_text(json.dumps({"version": 1, "edits": []}))
    image, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint16)
    write_encoded(
        Path("encoded.png"),
        {"image": image, "label_map": labels, "box": np.array([0, 0, 64, 64]), "valid": np.ones(64, bool)},
        {},
    )
    for name in ("key.json", "answers.json", "weights.pth"):
        Path(name).write_bytes(b"")
    Path("pictures").mkdir()
    Path("pictures", "a.png").write_bytes(saved(picture(), "PNG"))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ("reconstruct photo.png photo.png", "photo.png"),
        ("reconstruct photo.png pictures/../photo.png", "photo.png"),
        ("encode photo.png photo.png", "photo.png"),
        ("encode photo-numbers.png photo.npz", "photo-numbers.png"),
        ("edit encoded.png --script edit.json --out encoded.png", "encoded.png"),
        ("edit encoded.png --script edit.json --out out.png --drawing encoded.png", "encoded.png"),
        ("edit encoded.png --script edit.json --out out.png --drawing edit.json", "edit.json"),
        ("edit photo.png --script edit.json --out photo.png", "photo.png"),
        ("study analyse key.json answers.json --out key.json", "key.json"),
        ("study analyse key.json answers.json --out answers.json", "answers.json"),
        ("evaluate folders pictures pictures --inception weights.pth --out weights.pth", "weights.pth"),
        ("evaluate statistics pictures weights.pth --inception weights.pth", "weights.pth"),
    ],
)
def test_what_is_read_is_not_written_over(command, written, folder, capsys):
    before = (folder / written).read_bytes()
    assert main(command.split()) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert written in line
    assert "choose another" in line
    assert (folder / written).read_bytes() == before


@pytest.mark.parametrize(
    "command",
    ["reconstruct photo.png out.jpg", "reconstruct photo.png out", "edit encoded.png --script edit.json --out out.jpg"],
)
def test_a_name_of_another_format_is_refused(command, folder, capsys):
    assert main(command.split()) == 1
    assert capsys.readouterr().err.endswith("the model's images are written as PNG; use the suffix .png\n")
    assert not list(folder.glob("out*"))
