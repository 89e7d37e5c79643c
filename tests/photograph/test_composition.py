"""Compositions of edits of photographs: only the edited parts change, and objects keep their pixels."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from elements_jax.editing.script import Delete, Duplicate, EditError, EditScript, Move, Resize
from elements_jax.photograph import composition
from elements_jax.photograph.composition import Composition
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.selecting import Frame, Selection
from elements_jax.photograph.steps import Step, placement_of
from elements_jax.photograph.window import Window, box_of
from tests.helpers.photographs import flat_fill, photograph, square


class Grey:
    """A guide of uniform grey."""

    size = 16

    def __call__(self, window: Window, hole: np.ndarray) -> np.ndarray:
        return np.full((16, 16, 3), 127, np.uint8)


@pytest.fixture(autouse=True)
def _quick_fill(monkeypatch):
    monkeypatch.setattr(composition, "fill_hole", flat_fill)


def compose(photo: Photograph, *edits_and_masks, slack: float = 2.0, prompt: str = "") -> np.ndarray:
    """Return the pixels of a composition of edits, each with its mask."""
    frame = Frame(0.0, 0.0, float(photo.size[1]), float(photo.size[0]))
    steps = [Step(edit, Selection(mask, slack, frame), f"edits[{i}]") for i, (edit, mask) in enumerate(edits_and_masks)]
    return Composition(photo, steps).render(Grey(), EditScript(prompt=prompt))


@st.composite
def edited_photographs(draw):
    height, width = draw(st.integers(1, 160)), draw(st.integers(1, 160))
    shape = height, width, draw(st.sampled_from([1, 2, 3, 4]))
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, shape).astype(np.uint8)
    pixels = pixels.astype(np.uint16) * 257 if draw(st.booleans()) else pixels
    edits = []
    for _ in range(draw(st.integers(1, 3))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        mask = np.zeros((height, width), bool)
        mask[top : top + draw(st.integers(1, 60)), left : left + draw(st.integers(1, 60))] = True
        by = draw(st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
        scale = draw(st.floats(0.3, 3) | st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)))
        kind = draw(st.sampled_from([(Delete,), (Move, by), (Resize, scale), (Duplicate, by, scale)]))
        edits.append((kind, mask))
    return pixels, edits


def may_change(photo: Photograph, step: Step, slack: float) -> np.ndarray:
    """Return the pixels near an edit's source and target, by its geometry only."""
    height, width = photo.size
    left, top, right, bottom = box_of(step.selection.mask)
    near = np.zeros((height, width), bool)

    def mark(x0, y0, x1, y1, reach):
        x0, y0 = (int(max(0, np.floor(start - reach))) for start in (x0, y0))
        x1, y1 = (int(max(0, np.ceil(stop + reach))) for stop in (x1, y1))
        near[y0:y1, x0:x1] = True

    if not isinstance(step.edit, Duplicate):
        mark(left, top, right, bottom, slack + 2)
    if not isinstance(step.edit, Delete):
        placement = placement_of(step, (left, top, right, bottom), photo.size)
        mark(*placement.of((left, top, right, bottom)), (slack + 4) * max(1.0, *placement.scale))
    return near


@given(edited_photographs(), st.sampled_from([1.0, 2.0, 5.0]))
@settings(max_examples=60, deadline=None)
def test_unedited_pixels_equal_the_input_bit_for_bit(drawn, slack):
    pixels, edits = drawn
    photo = Photograph(pixels, b"", "PNG")
    edits = [(kind((), *fields), mask) for (kind, *fields), mask in edits]
    masks = [mask for _, mask in edits]
    if any((a & b).any() for i, a in enumerate(masks) for b in masks[i + 1 :]):
        edits = edits[:1]  # a twice edited object is at its place after the first edit
    before = photo.pixels.copy()
    after = compose(photo, *edits, slack=slack)
    np.testing.assert_array_equal(photo.pixels, before)
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    near = np.zeros(photo.size, bool)
    frame = Frame(0.0, 0.0, float(photo.size[1]), float(photo.size[0]))
    for edit, mask in edits:
        near |= may_change(photo, Step(edit, Selection(mask, slack, frame), ""), slack)
    np.testing.assert_array_equal(after[~near], before[~near])


@pytest.mark.parametrize("size", [(6000, 8000), (1, 8000), (6000, 1)])
def test_large_photographs_keep_their_unedited_pixels(size):
    photo = photograph(*size)
    mask = np.zeros(size, bool)
    y, x = size[0] // 2, size[1] // 3
    mask[y : y + 200, x : x + 300] = True
    after = compose(photo, (Move((), (0.3 if size[1] > 1 else 0.0, 0.1 if size[0] > 1 else 0.0)), mask))
    changed = (after != photo.pixels).any(axis=-1)
    left, top, right, bottom = box_of(changed)
    assert changed.any()
    assert left >= x - 8
    assert top >= y - 8
    assert right <= x + 300 + round(0.3 * size[1]) + 8
    assert bottom <= y + 200 + round(0.1 * size[0]) + 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_moved_keeps_its_very_pixels(dtype):
    photo = photograph(60, 90, dtype=dtype)
    after = compose(photo, (Move((), (0.5, 0.1)), square()))
    np.testing.assert_array_equal(after[29:43, 58:72], photo.pixels[23:37, 13:27])
    assert (after[22:38, 12:28] == (99 if dtype == np.uint8 else 99 * 257)).all()


def test_there_and_back_is_the_input():
    photo, mask = photograph(60, 90), square()
    for edits in (
        [Move((), (0.31, 0.17)), Move((), (-0.31, -0.17))],
        [Resize((), 0.5, (0.2, 0.4)), Resize((), 2.0, (0.2, 0.4))],
        [Move((), (0.0, 0.0))],
        [Resize((), 1.0)],
    ):
        assert compose(photo, *((edit, mask) for edit in edits)) is photo.pixels


def test_a_moved_object_is_edited_at_its_new_place():
    photo, mask = photograph(60, 90), square()
    twice = compose(photo, (Move((), (0.2, 0.0)), mask), (Move((), (0.3, 0.1)), mask))
    np.testing.assert_array_equal(twice, compose(photo, (Move((), (0.5, 0.1)), mask)))
    gone = compose(photo, (Move((), (0.5, 0.1)), mask), (Delete(()), mask))
    np.testing.assert_array_equal(gone, compose(photo, (Delete(()), mask)))
    with pytest.raises(EditError, match=r"edits\[1\]: its selection was deleted"):
        compose(photo, (Delete(()), mask), (Move((), (0.5, 0.1)), mask))


def test_a_part_of_a_moved_object_can_be_edited():
    photo, mask = photograph(60, 90), square()
    part = mask.copy()
    part[30:] = False
    after = compose(photo, (Move((), (0.5, 0.0)), mask), (Move((), (0.0, -0.2)), part))
    np.testing.assert_array_equal(after[34:37, 58:72], photo.pixels[34:37, 13:27])  # moved once
    np.testing.assert_array_equal(after[11:15, 58:72], photo.pixels[23:27, 13:27])  # moved twice


def test_neighbours_that_touch_are_not_taken_along():
    photo, one = photograph(60, 90), square()
    other = square(left=29)  # one column of twenty belongs to both
    after = compose(photo, (Move((), (0.0, -0.2)), one), (Move((), (0.4, 0.0)), other))
    np.testing.assert_array_equal(after[11:25, 13:27], photo.pixels[23:37, 13:27])


def test_a_copy_keeps_its_original_and_later_edits_mean_that():
    photo, mask = photograph(60, 90), square()
    copied = compose(photo, (Duplicate((), (0.5, 0.0)), mask))
    np.testing.assert_array_equal(copied[:, :50], photo.pixels[:, :50])
    np.testing.assert_array_equal(copied[23:37, 58:72], photo.pixels[23:37, 13:27])
    after = compose(photo, (Duplicate((), (0.5, 0.0)), mask), (Delete(()), mask))
    np.testing.assert_array_equal(after[:, 50:], copied[:, 50:])
    assert (after[23:37, 13:27] == 99).all()


def test_transparency_goes_along():
    photo = photograph(60, 90, channels=4)
    after = compose(photo, (Move((), (0.5, 0.0)), square()))
    np.testing.assert_array_equal(after[23:37, 58:72], photo.pixels[23:37, 13:27])


@pytest.mark.parametrize(("blur", "leaves"), [(0.0, False), (4.0, True)], ids=["sharp", "blurred"])
def test_only_what_shows_the_object_leaves_beyond_its_mask(blur, leaves):
    """A sharp edge keeps the background next to it; a blurred object leaves with its blur."""
    mask = np.zeros((120, 120), bool)
    mask[30:90, 30:90] = True
    share = ndimage.gaussian_filter(mask.astype(np.float32), blur)[..., None]
    noise = np.random.default_rng(0).normal(0, 3, (120, 120, 1))
    picture = np.rint(share * (200, 60, 40) + (1 - share) * (60, 120, 170) + noise).clip(0, 255).astype(np.uint8)
    hole = composition.with_fringe(picture, mask, slack=1.0, reach=8.0)
    depth = ndimage.distance_transform_edt(~mask)
    assert hole[depth <= 2].all()
    assert not hole[depth > 9].any()
    assert hole[(depth > 2) & (share[..., 0] > 0.35)].all()
    assert hole[depth > 2].any() == leaves


def test_a_prompt_shows_the_models_image_in_the_deleted_region():
    photo = replace(photograph(60, 90), pixels=np.full((60, 90, 3), 120, np.uint8))
    after = compose(photo, (Delete(()), square()), prompt="a red circle")
    assert np.abs(after[23:37, 13:27].astype(int) - 120).max() <= 1  # the guide's grey, toned to the photograph
