"""The measure of editing quality, on cases whose outcome is known."""

import numpy as np
import pytest

from elements_jax import scenes
from elements_jax.edits import Canvas
from elements_jax.elements import ImageElements
from elements_jax.scene_edits import EditCase, edit_case, kind, psnr, region_error, scene_of, score
from elements_jax.schema import Record

GRID = 16
N = GRID**2


def grid_canvas(size: int) -> Canvas:
    """Small square elements, so that they follow a shape closely."""
    import jax.numpy as jnp

    cell = np.arange(size) // (size // GRID)
    label_map = cell[:, None] * GRID + cell
    centre = (np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2) + 0.5) / GRID
    position = jnp.float32(np.concatenate([centre, np.full((N, 2), 1 / GRID)], axis=1))
    return Canvas(ImageElements(jnp.zeros((N, 1)), position, jnp.ones(N, bool)), jnp.int32(label_map))


def case_of(seed: int, which: int) -> EditCase:
    scene = scenes.scene(seed)
    edit = scenes.sample_edits(scene, seed)[which]
    image, objects = scenes.render(scene)
    return edit_case(scene, edit, image, objects == edit.k, grid_canvas(64))


@pytest.mark.parametrize("seed", range(5))
def test_pixels_pasted_by_a_move_agree_with_the_truth_at_the_target(seed):
    case = case_of(seed, 0)
    _, true_objects = scenes.render(scenes.scene(seed).edited(case.edit))
    inside = true_objects == case.edit.k
    interior = inside & np.roll(inside, 3, 0) & np.roll(inside, -3, 0) & np.roll(inside, 3, 1) & np.roll(inside, -3, 1)
    error = np.abs(case.pasted.astype(float) - case.truth)[interior].mean()
    unedited = np.abs(case.image.astype(float) - case.truth)[interior].mean()
    assert error < 0.5 * unedited


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_region_holds_all_that_the_truth_changes(which):
    case = case_of(3, which)
    changed = np.abs(case.image.astype(int) - case.truth).max(-1) > 60
    assert case.region[changed].mean() > 0.9


def test_score_counts_wins_over_both_baselines():
    cases = [case_of(seed, 2) for seed in range(4)]
    results = [cases[0].truth, cases[1].image, cases[2].truth, 255 - cases[3].truth]
    scores = score(cases, results)
    assert scores["delete"].count == 4
    assert scores["delete"].share_won == 0.5
    assert scores["all"] == scores["delete"]
    assert scores["delete"].unedited == scores["delete"].pasted  # pixel editing leaves the source where it is
    flat = [np.ones_like(case.image) * case.image.mean((0, 1)).astype(np.uint8) for case in cases]
    errors = [region_error(picture, case) for picture, case in zip(flat, cases, strict=True)]
    assert scores["delete"].flat == np.median(errors)
    unedited = [region_error(case.image, case) for case in cases]
    assert scores["delete"].share_won_by_flat == np.mean(np.less(errors, unedited))


def test_errors_are_zero_for_the_truth_and_in_the_region_alone():
    case = case_of(1, 0)
    assert region_error(case.truth, case) == 0
    outside = np.where(case.region[..., None], case.truth, 255 - case.truth)
    assert region_error(outside, case) == 0
    assert psnr(case.truth, case.truth) == 100
    assert psnr(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)) == pytest.approx(0)


def test_kinds_of_edit_by_name():
    assert kind(scenes.Edit("resize", 1, scale=0.5)) == "shrink"
    assert kind(scenes.Edit("resize", 1, scale=1.5)) == "enlarge"
    assert kind(scenes.Edit("delete", 1)) == "delete"


def test_a_record_that_is_no_scene_is_named():
    record = Record(
        np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint16), "", np.zeros((0, 64, 64), bool), "cat.png",
        {"num_elements": 1},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"'cat\.png' is no scene"):
        scene_of(record)
