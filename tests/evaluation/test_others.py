"""Inputs of an edit for other authors' methods."""

import json

import numpy as np
from PIL import Image

from elements_jax.editing.apply import Edited
from elements_jax.editing.script import Compose, Delete, EditScript, Move
from elements_jax.evaluation.methods.external import (
    background,
    external_input_paths,
    paint_by_example,
    self_guidance,
    write_needs,
)
from elements_jax.evaluation.methods.method import Prepared
from elements_jax.evaluation.results import Case, Task
from tests.helpers.scenes import CELL, GRID, SIZE, block, canvas, run


def test_move_paints_background_at_the_source_then_the_object():
    image, done = np.asarray(canvas().picture), run(Move((0, 1), (4 / GRID, 4 / GRID)))
    fill, put = paint_by_example(done.steps)
    assert fill.mask[:CELL, : 2 * CELL].all()
    assert fill.mask.sum() == put.mask.sum() == 2 * CELL**2
    np.testing.assert_array_equal(put.example, image[:CELL, : 2 * CELL])
    assert put.mask[4 * CELL : 5 * CELL, 4 * CELL : 6 * CELL].all()
    assert fill.example.shape == (2 * CELL, 2 * CELL, 3)


def test_a_deletion_and_a_composition_are_one_step_each():
    (fill,) = paint_by_example(run(Delete((9,))).steps)
    assert fill.mask[block(1, 1)].all()
    (put,) = paint_by_example(run(Compose("7", (9,), (1 / GRID, 0.0))).steps)
    np.testing.assert_array_equal(put.example, np.asarray(canvas(7).picture)[block(1, 1)])
    assert put.mask[block(1, 2)].all()


def test_background_is_a_free_square_like_the_surroundings():
    """Two objects are in the left half; the right half has another colour."""
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE, 3), 200) + rng.integers(-9, 10, (SIZE, SIZE, 3))
    image[:, 16:] -= 150
    source, other, target = np.zeros((3, SIZE, SIZE), bool)
    source[2:10, 2:10], other[12:18, 4:10], target[20:, 20:] = True, True, True
    image[source], image[other] = (250, 0, 0), (0, 0, 250)
    found = background(image.astype(np.uint8), source, target).astype(int)
    assert found.shape == (8, 8, 3)
    assert np.abs(found - 200).max() < 10


def test_background_shrinks_or_is_arbitrary_when_little_is_free():
    image = np.arange(SIZE * SIZE * 3, dtype=np.uint32).reshape(SIZE, SIZE, 3).astype(np.uint8)
    source = np.zeros((SIZE, SIZE), bool)
    source[:20, :20] = True
    all_but_a_corner = ~source
    all_but_a_corner[22:, 22:] = False
    np.testing.assert_array_equal(background(image, source, all_but_a_corner).shape, (8, 8, 3))
    assert background(image, source, all_but_a_corner)[0, 0, 0] in image[22:25, 22:25, 0]
    assert background(image, np.ones_like(source), ~source).shape == (8, 8, 3)


def test_self_guidance_gets_places_and_sizes():
    (step,) = run(Move((0, 1), (4 / GRID, 0.0))).steps
    assert self_guidance(step) == {
        "before": {"centroid": [1 / GRID, 0.5 / GRID], "size": 2 / GRID**2},
        "after": {"centroid": [5 / GRID, 0.5 / GRID], "size": 2 / GRID**2},
    }
    (step,) = run(Delete((3,))).steps
    assert self_guidance(step)["after"] is None


def test_inputs_are_written_completely(tmp_path):
    script = EditScript((Move((0, 1), (4 / GRID, 0.0)),), "a cat", seed=0)
    case = Case("left", "move", "move the cat", "1", "a cat", script, "cat")
    prepared = Prepared(Task(case), Edited(canvas(), canvas()), run(*script.edits))
    write_needs(tmp_path, prepared)
    write_needs(tmp_path, prepared)
    folder, guidance = external_input_paths(tmp_path, case)
    steps = json.loads((folder / "steps.json").read_text())
    assert [sorted(step) for step in steps] == [["example", "mask"]] * 2
    with Image.open(folder / steps[0]["mask"]) as mask:
        assert mask.size == (SIZE, SIZE)
    assert json.loads(guidance.read_text())["object"] == "cat"
    assert len(json.loads(guidance.read_text())["edits"]) == 1
    assert {path.name for path in tmp_path.rglob("*") if "unfinished" in path.name} == set()
