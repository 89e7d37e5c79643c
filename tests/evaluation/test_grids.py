"""Comparison grids: every image in its cell, rows and columns in order, and empty cells for missing images."""

import numpy as np
import pytest
from PIL import Image

from elements_jax.cli.main import main
from elements_jax.evaluation import results
from elements_jax.evaluation.grids import GAP, MARGIN, fitted, head, write_grids
from tests.helpers.scene_results import write_scene_results

CELL = 64


def cells(path, rows: int, columns: int) -> np.ndarray:
    """Return the cells of a grid (rows, columns, CELL, CELL, 3), counted from its lower right corner."""
    with Image.open(path) as picture:
        below = np.asarray(picture)[:-MARGIN, :-MARGIN]
    below = below[-rows * (CELL + GAP) + GAP :, -columns * (CELL + GAP) + GAP :]
    return np.array(
        [
            [below[y : y + CELL, x : x + CELL] for x in range(0, below.shape[1], CELL + GAP)]
            for y in range(0, below.shape[0], CELL + GAP)
        ]
    )


def test_every_picture_is_in_its_cell(tmp_path, capsys):
    cases = write_scene_results(tmp_path / "results", 2)
    results.path_of(tmp_path / "results", "sd-inpaint", cases[1]).unlink()
    assert (
        main(["study", "grid", str(tmp_path / "results"), str(tmp_path / "out"), "--rows", "4", "--cell", str(CELL)])
        == 0
    )
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["grid-01.png", "grid-02.png", "index.html"]
    columns = ["input", "drawing", "ours", "pixels", "sd-inpaint", "sdedit-0.5", "truth"]
    for number, part in enumerate((cases[:4], cases[4:]), start=1):
        found = cells(tmp_path / "out" / f"grid-{number:02}.png", len(part), len(columns))
        for row, case in zip(found, part, strict=True):
            for cell, column in zip(row, columns, strict=True):
                if (column, case) == ("sd-inpaint", cases[1]):
                    assert (cell[0, 0] == (228, 231, 235)).all()
                else:
                    expected = np.asarray(fitted(results.picture(tmp_path / "results", column, case), CELL))
                    np.testing.assert_array_equal(cell, expected)


def test_columns_are_as_asked(tmp_path):
    write_scene_results(tmp_path / "results", 1)
    page = write_grids(tmp_path / "results", tmp_path / "out", methods=("sdedit-0.5", "ours"), cell=CELL)
    assert "Columns: Input, Edit, Pixel editing + SDEdit 0.5, Ours, Truth." in page.read_text()
    assert head("other-method") == "other-method"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"methods": ("nobody",)}, "no images of 'nobody'; it has ours"),
        ({"rows": 0}, "expected at least 1 row"),
        ({"cell": 9}, "cells of 32 to 2048"),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path, options, problem):
    write_scene_results(tmp_path / "results", 1)
    with pytest.raises(ValueError, match=problem):
        write_grids(tmp_path / "results", tmp_path / "out", **options)


def test_pictures_of_any_shape_fit_their_cell():
    assert fitted(np.zeros((100, 300, 3), np.uint8), 60).size == (60, 20)
    assert fitted(np.zeros((4, 2, 3), np.uint8), 60).size == (30, 60)
