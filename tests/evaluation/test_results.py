"""The results folder: contents are read back unchanged, and damage is named."""

import numpy as np
import pytest

from elements_jax.editing.script import EditScript, Move
from elements_jax.evaluation.report import Score, table
from elements_jax.evaluation.results import Case, methods, not_run, picture, read_cases, region, save, write_cases

CASES = [
    Case(
        "0000-move",
        "move",
        "move the “red” circle up",
        "scene-1.png",
        "a circle",
        EditScript((Move((1,), (0.0, -0.2)),)),
    ),
    Case("0001-delete", "delete", "remove it"),
]


def test_cases_and_images_are_read_back_unchanged(tmp_path):
    write_cases(tmp_path, CASES)
    assert read_cases(tmp_path) == CASES
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    save(tmp_path, "ours", CASES[0], pixels)
    save(tmp_path, "region", CASES[0], pixels[..., 0] > 99)
    np.testing.assert_array_equal(picture(tmp_path, "ours", CASES[0]), pixels)
    np.testing.assert_array_equal(region(tmp_path, CASES[0]), pixels[..., 0] > 99)


def test_methods_are_the_folders_with_a_picture_of_a_case(tmp_path):
    write_cases(tmp_path, CASES)
    for method in ("pixels", "input", "region", "ours"):
        save(tmp_path, method, CASES[0], np.zeros((2, 2, 3), np.uint8))
    save(tmp_path, "plots", Case("loss", "move", ""), np.zeros((2, 2, 3), np.uint8))
    assert methods(tmp_path) == ["ours", "pixels"]


def test_methods_of_others_that_have_made_nothing_are_named(tmp_path):
    write_cases(tmp_path, CASES)
    assert not_run(tmp_path) == []
    for method in ("self-guidance", "paint-by-example"):
        (tmp_path / "needs" / method).mkdir(parents=True)
    save(tmp_path, "paint-by-example", CASES[0], np.zeros((2, 2, 3), np.uint8))
    assert not_run(tmp_path) == ["self-guidance"]
    _, *lines = table([Score("ours", "move", "psnr", 20.0, 3, None)], not_run(tmp_path)).splitlines()
    assert [" ".join(line.split()) for line in lines] == ["ours move 3 20.00", "self-guidance not run 0 -"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"name": "a", "kind": "move"}', "instruction: expected text"),
        ('{"name": "a", "kind": "move", "instruction": "", "edits": []}', "edits: unknown field"),
        ('{"name": "../a", "kind": "move", "instruction": ""}', "name: expected a file name"),
        ('{"name": "a", "kind": "move", "instruction": "", "script": {"version": 2}}', "version: expected 1"),
        ("[]", "expected an object"),
        (CASES[1].to_json(), "name: '0001-delete' is already used by an earlier case"),
    ],
)
def test_errors_name_a_line_that_is_not_a_case(tmp_path, line, problem):
    (tmp_path / "cases.jsonl").write_text(CASES[1].to_json() + "\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"cases\.jsonl line 2: {problem}"):
        read_cases(tmp_path)


def test_a_picture_that_is_cut_short_is_named(tmp_path):
    save(tmp_path, "ours", CASES[0], np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    path = tmp_path / "ours" / "0000-move.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"0000-move\.png: not a readable image"):
        picture(tmp_path, "ours", CASES[0])
