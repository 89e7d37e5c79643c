"""Commands with a small random model: encode, edit and reconstruct a photograph; their errors."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elements_jax.cli.main import main
from tests.helpers.records import record


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(record(0).image).resize((40, 32)).save(path)
    return path


def test_the_commands_from_photograph_to_edited_picture(tmp_path, photo, model_folder, capsys):
    pytest.importorskip("skimage")
    encoded, script, model = tmp_path / "photo.npz", tmp_path / "edit.json", ["--model", str(model_folder)]
    assert main(["encode", str(photo), str(encoded), *model, "--segmenter", "grid"]) == 0
    assert re.search(r"4 elements, numbered in .*photo-numbers\.png", capsys.readouterr().out)
    assert (tmp_path / "photo-numbers.png").is_file()
    assert size_of(photo) == (40, 32)  # not overwritten

    script.write_text(
        json.dumps(
            {
                "version": 1,
                "edits": [
                    {"edit": "move", "elements": [0], "by": [0.5, 0.0]},
                    {"edit": "compose", "image": "photo.npz", "elements": [3], "by": [-0.5, 0]},
                ],
                "prompt": "a red square",
            }
        )
    )
    result, drawing = tmp_path / "result.png", tmp_path / "drawing.png"
    command = ["edit", str(encoded), "--script", str(script), "--out", str(result), *model, "--segmenter", "grid"]
    assert main([*command, "--drawing", str(drawing)]) == 0
    assert size_of(result) == (16, 16)
    assert min(size_of(drawing)) >= 512
    again = ["edit", str(encoded), "--script", str(result), *model, "--segmenter", "grid"]
    assert main(again) == 0  # a result is its own script
    assert (tmp_path / "photo-edited.png").read_bytes() == result.read_bytes()
    (tmp_path / "out.jpg").unlink(missing_ok=True)
    assert main([*command[:4], "--out", str(tmp_path / "out.jpg"), *model]) == 1
    assert "written as PNG" in capsys.readouterr().err
    assert not (tmp_path / "out.jpg").exists()
    sampling = ["--sampler", "dpm", "--steps", "3", "--guidance", "2", "--element-guidance", "1"]
    assert main(["reconstruct", str(encoded), str(tmp_path / "again.png"), *model, *sampling]) == 0
    assert size_of(tmp_path / "again.png") == (16, 16)


def test_preserving_edit_keeps_the_input_outside_the_edit(tmp_path, photo, model_folder):
    pytest.importorskip("skimage")
    encoded, script, result = tmp_path / "photo.npz", tmp_path / "edit.json", tmp_path / "result.png"
    model = ["--model", str(model_folder)]
    assert main(["encode", str(photo), str(encoded), *model, "--segmenter", "grid"]) == 0
    with np.load(encoded) as archive:
        image, label_map = archive["image"], archive["label_map"]
    for listed, far in (
        ([], np.ones((16, 16), bool)),
        ([{"edit": "delete", "elements": [int(label_map[0, 0])]}], np.add.outer(range(16), range(16)) >= 24),
    ):
        script.write_text(json.dumps({"version": 1, "edits": listed}))
        assert main(["edit", str(encoded), "--script", str(script), "--out", str(result), *model, "--preserve"]) == 0
        with Image.open(result) as picture:
            kept = np.asarray(picture)
        np.testing.assert_array_equal(kept[far], image[far])
        assert (kept[~far] != image[~far]).any() == bool(listed)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"edit": "delete", "elements": [9]}, "element 9 does not exist; the photograph has elements 0 to 3"),
        ({"edit": "compose", "image": "none.png", "elements": [0]}, "none.png"),
        ({"edit": "flip", "elements": [0]}, "edits[0]"),
    ],
)
def test_a_wrong_script_ends_with_one_line(edit, message, tmp_path, photo, model_folder, capsys):
    pytest.importorskip("skimage")
    script = tmp_path / "edit.json"
    script.write_text(json.dumps({"version": 1, "edits": [edit]}))
    result = tmp_path / "result.png"
    command = ["edit", str(photo), "--script", str(script), "--out", str(result), "--model", str(model_folder)]
    assert main([*command, "--segmenter", "grid"]) == 1
    *progress, error = capsys.readouterr().err.splitlines()
    assert progress in ([], ["finding what to edit, and filling the holes ..."])
    assert error.startswith("error: ")
    assert message in error
    assert not result.exists()


def test_a_damaged_encoded_file_is_named(tmp_path, model_folder, capsys):
    path = tmp_path / "photo.npz"
    path.write_bytes(b"PK not a zip")
    assert main(["reconstruct", str(path), str(tmp_path / "out.png"), "--model", str(model_folder)]) == 1
    assert "photo.npz: not a file that `elements encode` wrote" in capsys.readouterr().err


def test_every_command_explains_itself(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for command in ("partition", "train", "encode", "edit", "batch", "reconstruct", "scenes"):
        assert f"\n  {command} " in overview
    for command in ("encode", "edit", "batch", "reconstruct", "scenes"):
        with pytest.raises(SystemExit) as exit_code:
            main([command, "--help"])
        assert exit_code.value.code == 0
        assert f"usage: elements {command}" in capsys.readouterr().out


def test_scenes_command_writes_input_for_partition(tmp_path):
    assert main(["scenes", str(tmp_path), "--count", "2", "--first", "5", "--size", "32"]) == 0
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["scene-0000005.png", "scene-0000006.png"]
    assert size_of(tmp_path / "masks" / "scene-0000005.png") == (32, 32)
