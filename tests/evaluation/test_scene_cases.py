"""The edits of scenes match their instructions, and are the same under any partition."""

import dataclasses

import numpy as np
import pytest

from elements_jax.data.record import DROPPED, Record
from elements_jax.editing.script import Compose, Delete, Move, Resize
from elements_jax.evaluation.scenes.drawn_cases import KINDS, elements_under, recoloured, scene_cases, scene_of
from elements_jax.scenes import drawn
from tests.helpers.scenes import GRID, SIZE, cells, scene_record, squares

RECORDS = [scene_record(seed) for seed in range(6)]
TASKS = list(scene_cases(RECORDS))


def test_every_scene_has_edits_of_every_kind():
    of = {r.source_id: [t.case.kind for t in TASKS if t.case.source_id == r.source_id] for r in RECORDS}
    for record in RECORDS:
        few = len(scene_of(record).shapes) < 4
        assert len(of[record.source_id]) == 4 + few
        assert {"move", "delete", "variation"} <= set(of[record.source_id])
    assert {task.case.kind for task in TASKS} == set(KINDS)
    assert len({task.case.name for task in TASKS}) == len(TASKS)


def test_region_covers_every_change_of_the_truth_and_little_more():
    for task in TASKS:
        image = next(r.image for r in RECORDS if r.source_id == task.case.source_id)
        changed = (image != task.truth).any(-1)
        assert task.region[changed].all(), task.case.name
        assert changed[task.region].mean() > 0.25, task.case.name


def test_instruction_script_and_prompt_say_the_same():
    kinds = {"move": Move, "shrink": Resize, "enlarge": Resize, "delete": Delete, "compose": Compose}
    for task in TASKS:
        case, (edit,) = task.case, task.case.script.edits
        assert isinstance(edit, kinds.get(case.kind, Delete))
        assert case.object in case.instruction
        assert (case.object in case.prompt) == (case.kind not in ("delete", "variation"))
        if case.kind == "move":
            dx, dy = edit.by
            assert ("left" in case.instruction) <= (dx < 0)
            assert ("down" in case.instruction) <= (dy > 0)
            assert case.instruction.split()[-1] in ("left", "right", "up", "down")
        if case.kind in ("shrink", "enlarge"):
            assert (edit.scale > 1) == case.instruction.endswith("larger") == (case.kind == "enlarge")


def test_pasted_pixels_agree_with_the_truth_at_the_target():
    """Script and truth mean the same place."""
    for task in TASKS:
        if task.case.kind == "move":
            record = next(r for r in RECORDS if r.source_id == task.case.source_id)
            edit = task.case.script.edits[0]
            shift = np.rint(np.multiply(edit.by, SIZE)).astype(int)
            ys, xs = np.nonzero(np.isin(record.label_map, edit.elements) & (record.image != 0).any(-1))
            inside = (ys + shift[1] < SIZE) & (xs + shift[0] < SIZE) & (ys + shift[1] >= 0) & (xs + shift[0] >= 0)
            ys, xs = ys[inside], xs[inside]
            error = np.abs(record.image[ys, xs].astype(float) - task.truth[ys + shift[1], xs + shift[0]])
            assert np.median(error) < 25, task.case.name


def test_the_same_edits_are_made_of_any_partition():
    """Truths, regions and words do not depend on the partition; elements do, but are on the same object."""
    others = [scene_record(seed, cells(seed)) for seed in range(6)]
    for ours, theirs in zip(TASKS, scene_cases(others), strict=True):
        assert dataclasses.replace(ours.case, script=None) == dataclasses.replace(theirs.case, script=None)
        np.testing.assert_array_equal(ours.truth, theirs.truth)
        np.testing.assert_array_equal(ours.region, theirs.region)
    assert any(a.case.script != b.case.script for a, b in zip(TASKS, scene_cases(others), strict=True))


def test_selects_elements_mostly_under_the_mask():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:4, :10] = True
    assert elements_under(squares(), mask) == (0, 1, 2)
    mask[:] = False
    mask[5, 4:6] = True
    assert elements_under(squares(), mask) == (GRID + 1,)
    assert elements_under(np.full((SIZE, SIZE), DROPPED, np.uint16), mask) == ()


def test_a_shape_in_another_colour_keeps_all_else():
    shape = drawn.scene(3).shapes[0]
    varied = recoloured(shape, "teal")
    assert varied.words == shape.words.replace(shape.texture.colour, "teal")
    assert varied.texture.tones[0] == drawn.COLOURS["teal"]
    back = recoloured(varied, shape.texture.colour)
    assert back == shape


def test_records_that_are_no_scenes_are_named():
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    cat = Record(pixels, squares(), "", np.zeros((0, SIZE, SIZE), bool), "cat.png", {"num_elements": GRID**2})
    with pytest.raises(ValueError, match=r"'cat\.png' is not a scene"):
        scene_of(cat)
    other = dataclasses.replace(RECORDS[0], image=RECORDS[1].image)
    with pytest.raises(ValueError, match=r"'scene-0000000\.png' does not show its scene"):
        next(scene_cases([other]))
