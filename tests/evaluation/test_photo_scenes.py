"""Photo scenes: cut-outs, their composition, and edits with a known truth."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elements_jax.data.record import Record
from elements_jax.editing.script import Delete, Duplicate, Move
from elements_jax.evaluation.scenes.photographic_cases import photo_scene_cases
from elements_jax.scenes.photographic import (
    KINDS,
    Cutout,
    PhotoScene,
    PlacedObject,
    cutouts,
    photo_edits,
    photo_scene,
    render,
    write_folder,
)
from tests.helpers.scenes import cells, squares

SIZE = 64


def photograph(seed: int, *masks: np.ndarray) -> Record:
    """Return random colours, with a disc as an object unless masks are given."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    masks = masks or ((x - 20 - seed % 9) ** 2 + (y - 30) ** 2 < (8 + seed % 3) ** 2,)
    settings = {"num_elements": 64}
    return Record(image, squares(SIZE), f"a photo of a thing {seed}", np.stack(masks), f"photo-{seed}.png", settings)


PHOTOGRAPHS = [photograph(seed) for seed in range(8)]
SCENES = [photo_scene(PHOTOGRAPHS, seed) for seed in range(12)]


def record_of(seed: int, label_map: np.ndarray | None = None) -> Record:
    image, _ = render(SCENES[seed])
    label_map = squares(SIZE) if label_map is None else label_map
    masks = np.zeros((0, SIZE, SIZE), bool)
    return Record(image, label_map, SCENES[seed].caption, masks, f"photo-scene-{seed:07d}.png", {"num_elements": 64})


RECORDS = [record_of(seed) for seed in range(len(SCENES))]
TASKS = list(photo_scene_cases(RECORDS, PHOTOGRAPHS))


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (box(10, 10, 30, 30), 1),
        (box(0, 10, 20, 30), 0),  # touches the margin
        (box(10, 10, 14, 14), 0),  # too small
        (box(5, 5, 60, 60), 0),  # too large
        (box(10, 10, 20, 20) | box(40, 40, 50, 50), 0),  # of two pieces
        (box(10, 10, 40, 12) | box(38, 10, 40, 40), 0),  # not compact
        (np.zeros((SIZE, SIZE), bool), 0),
    ],
)
def test_only_whole_compact_objects_are_cut_out(mask, count):
    assert len(list(cutouts(photograph(0, mask)))) == count


def test_a_cutout_leaves_out_the_edge_of_its_mask():
    record = photograph(3, box(10, 12, 30, 28))
    [cutout] = cutouts(record)
    np.testing.assert_array_equal(cutout.pixels, record.image[10:30, 12:28])
    np.testing.assert_array_equal(cutout.alpha[1:-1, 1:-1], 1)
    assert cutout.alpha[0].max() == cutout.alpha[:, -1].max() == 0
    assert cutout.words == "a thing 3"


def test_rendering_blends_every_pixel_by_its_alpha():
    rng = np.random.default_rng(0)
    background = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    cutout = [
        Cutout(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8), rng.uniform(size=(9, 7)).astype(np.float32), "it")
        for _ in range(2)
    ]
    scene = PhotoScene(background, (PlacedObject(cutout[0], 20, 30), PlacedObject(cutout[1], 24, 33)), "a wall")
    expected, labels = background.astype(float), np.zeros((SIZE, SIZE), int)
    for k, placed in enumerate(scene.objects, start=1):
        for y in range(9):
            for x in range(7):
                at, alpha = (placed.top + y, placed.left + x), float(placed.cutout.alpha[y, x])
                expected[at] = (1 - alpha) * expected[at] + alpha * placed.cutout.pixels[y, x]
                labels[at] = k if alpha >= 0.5 else labels[at]
    picture, label_map = render(scene)
    assert np.abs(picture - expected).max() < 0.51
    np.testing.assert_array_equal(label_map, labels)


@given(st.floats(0.5, 2.0))
def test_a_resized_cutout_keeps_its_colour_up_to_its_edge(scale):
    alpha = np.zeros((20, 16), np.float32)
    alpha[2:-2, 2:-2] = 1
    colour = np.array([200, 30, 90])
    pixels = np.where(alpha[..., None] > 0, colour, 255).astype(np.uint8)  # white around it must not bleed in
    resized = Cutout(pixels, alpha, "it").resized(scale)
    assert resized.alpha.shape == (round(20 * scale), round(16 * scale))
    assert 0 <= resized.alpha.min() <= resized.alpha.max() <= 1
    shown = resized.alpha > 0.05
    assert np.abs(resized.pixels[shown].astype(int) - colour).max() <= 1


def test_a_scene_follows_from_its_seed():
    again = photo_scene(PHOTOGRAPHS, 5)
    np.testing.assert_array_equal(render(again)[0], render(SCENES[5])[0])
    assert again.caption == SCENES[5].caption
    assert {len(scene.objects) for scene in SCENES} == {1, 2}
    assert len({render(scene)[0].tobytes() for scene in SCENES}) == len(SCENES)


def test_photographs_without_objects_are_refused():
    with pytest.raises(ValueError, match="no object that can be cut out: run `elements partition --masks auto`"):
        photo_scene([photograph(seed, np.zeros((SIZE, SIZE), bool)) for seed in range(3)], 0)


def test_an_object_that_moves_shows_the_same_pixels_elsewhere():
    moves = 0
    for scene in SCENES:
        for edit in photo_edits(scene, SCENES[0], 1):
            if edit.kind == "move":
                before, after = scene.objects[0], edit.after.objects[0]
                solid = before.cutout.alpha == 1
                shown = render(edit.after)[0]
                np.testing.assert_array_equal(shown[after.box][solid], render(scene)[0][before.box][solid])
                bare = render(scene.replaced(1))[0]
                np.testing.assert_array_equal(shown[before.box], bare[before.box])
                moved = ((after.left - before.left) / SIZE, (after.top - before.top) / SIZE)
                assert edit.by == pytest.approx(moved)
                moves += 1
    assert moves > 6


def test_the_tasks_have_every_kind_and_their_truth():
    assert {task.case.kind for task in TASKS} == set(KINDS)
    assert len({task.case.name for task in TASKS}) == len(TASKS)
    for task in TASKS:
        number = int(task.case.source_id[-11:-4])
        image, objects = render(SCENES[number])
        changed = (image != task.truth).any(-1)
        assert changed.any(), task.case.name
        assert task.region[changed].all(), task.case.name
        [edit] = task.case.script.edits
        if isinstance(edit, Delete):
            np.testing.assert_array_equal(task.truth, render(SCENES[number].replaced(1))[0])
        if isinstance(edit, Move | Duplicate | Delete):
            under = np.isin(RECORDS[number].label_map, edit.elements)
            inside = (under & (objects == 1)).sum()
            assert inside >= 0.5 * under.sum() or (inside and len(edit.elements) == 1)


def test_another_partition_gives_the_same_edits():
    others = list(photo_scene_cases([record_of(i, cells(i, 64, SIZE)) for i in range(len(SCENES))], PHOTOGRAPHS))
    assert [task.case.name for task in others] == [task.case.name for task in TASKS]
    for one, other in zip(TASKS, others, strict=True):
        np.testing.assert_array_equal(one.truth, other.truth)
        np.testing.assert_array_equal(one.region, other.region)


def test_records_of_other_photographs_are_refused():
    with pytest.raises(ValueError, match=r"'photo-scene-0000000.png' does not show its scene"):
        list(photo_scene_cases(RECORDS[:1], [photograph(seed) for seed in range(20, 28)]))
    other = dataclasses.replace(RECORDS[0], source_id="scene-0000000.png")
    with pytest.raises(ValueError, match=r"is not a photo scene: expected photo-scene-0000042\.png"):
        list(photo_scene_cases([other], PHOTOGRAPHS))


def test_the_folder_holds_pictures_captions_and_masks(tmp_path):
    from PIL import Image

    write_folder(PHOTOGRAPHS, tmp_path, range(4, 6))
    for seed in (4, 5):
        image, labels = render(SCENES[seed])
        np.testing.assert_array_equal(Image.open(tmp_path / f"photo-scene-{seed:07d}.png"), image)
        np.testing.assert_array_equal(Image.open(tmp_path / "masks" / f"photo-scene-{seed:07d}.png"), labels)
        assert (tmp_path / f"photo-scene-{seed:07d}.txt").read_text() == SCENES[seed].caption + "\n"
