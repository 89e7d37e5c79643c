"""Edits of complete photographs: only the edited parts change, and objects keep their pixels."""

import io
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from elements_jax.data.photo import Photo
from elements_jax.editing.script import (
    Compose,
    Continue,
    Delete,
    Duplicate,
    EditError,
    EditScript,
    Move,
    ObjectAt,
    Resize,
    Sampling,
)
from elements_jax.photograph import composition
from elements_jax.photograph.composition import Composition
from elements_jax.photograph.edit import edit_photograph
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.selecting import Frame, Selection
from elements_jax.photograph.steps import Step, placement_of
from elements_jax.photograph.window import Window, box_of
from elements_jax.pipeline.session import Cancelled, EditSession
from tests.helpers.models import stage_1_of

QUARTERS = (np.arange(16)[:, None] // 8 * 2 + np.arange(16) // 8).astype(np.uint16)


def photograph(height: int, width: int, seed: int = 0, channels: int = 3, dtype: type = np.uint8) -> Photograph:
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype)
    return Photograph(pixels, png(pixels) if dtype == np.uint8 else b"", "PNG")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


class Grey:
    """A guide of uniform grey."""

    size = 16

    def __call__(self, window: Window, hole: np.ndarray) -> np.ndarray:
        return np.full((16, 16, 3), 127, np.uint8)


def flat_fill(colours, hole, guide=None, probes=None):
    return np.where(hole[..., None], np.uint8(99), colours)


@pytest.fixture(autouse=True)
def _quick_fill(request, monkeypatch):
    if "real_fill" not in request.keywords:
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


def square(height: int = 60, width: int = 90, top: int = 20, left: int = 10, side: int = 20) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


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


def test_a_prompt_shows_the_models_image_in_the_deleted_region():
    photo = replace(photograph(60, 90), pixels=np.full((60, 90, 3), 120, np.uint8))
    after = compose(photo, (Delete(()), square()), prompt="a red circle")
    assert np.abs(after[23:37, 13:27].astype(int) - 120).max() <= 1  # the guide's grey, toned to the photograph


# -- with a model ------------------------------------------------------------------------------------------------------


def divide(encoded: bytes, fit: str) -> Photo:
    with Image.open(io.BytesIO(encoded)) as picture:
        box = (0, 0, 16, 16) if fit == "crop" else (0, 4, 16, 12)
        return Photo(np.asarray(picture.convert("RGB").resize((16, 16))), QUARTERS, box)


@pytest.fixture(scope="module")
def editing(pipeline) -> EditSession:
    return EditSession(pipeline, divide, "quarters")


def label(image: np.ndarray) -> np.ndarray:
    return QUARTERS


def edit(editing, photo, *edits, pictures=None, report=lambda: True, **fields):
    fields = {"sampling": Sampling(steps=2), **fields}
    return edit_photograph(
        editing,
        photo,
        EditScript(edits, **fields),
        label,
        find_object=lambda image, at: (square(*image.shape[:2], side=12), 2.0),
        open_named=(pictures or {}).__getitem__,
        report=report,
    )


HERE = ObjectAt(point=(0.2, 0.4))


@pytest.mark.parametrize("detail", [None, "pixels", "decoder"])
def test_both_ways_change_only_the_edited_region(editing, detail):
    photo = photograph(200, 300)
    after = edit(editing, photo, Move((), (0.1, 0.0), object=HERE), detail=detail)
    changed = (after.pixels != photo.pixels).any(axis=-1)
    assert changed[24:28, 14:18].all()
    left, top, right, bottom = box_of(changed)
    limit = 60 if detail == "decoder" else 8  # an element is a quarter of the window
    assert (left >= max(0, 10 - limit), top >= max(0, 20 - limit)) == (True, True)
    assert (right <= 52 + limit, bottom <= 32 + limit) == (True, True)


def test_patches_fill_a_hole_without_a_guide(pipeline):
    unguided, photo = EditSession(pipeline, divide, "quarters", guides=False), photograph(200, 300)

    def fail():
        raise AssertionError("the model decoded")

    after = edit(unguided, photo, Delete((), object=HERE), report=fail)
    assert (after.pixels[square(200, 300, side=12)] == 99).all()
    np.testing.assert_array_equal(after.pixels[60:], photo.pixels[60:])
    # A prompt needs the model's image.
    with pytest.raises(AssertionError, match="the model decoded"):
        edit(unguided, photo, Delete((), object=HERE), prompt="a red circle", report=fail)
    everything = replace(photo, pixels=np.full_like(photo.pixels, 255))
    with pytest.raises(EditError, match="leave no part of the photograph from which to fill the hole"):
        edit(unguided, photo, Delete((), object=ObjectAt(mask="all")), pictures={"all": everything})


def test_without_a_model_patches_fill_holes_and_paint_nothing(pipeline):
    photo, unguided = photograph(200, 300), EditSession(pipeline, divide, "quarters", guides=False)
    after = edit(None, photo, Delete((), object=HERE))
    np.testing.assert_array_equal(after.pixels, edit(unguided, photo, Delete((), object=HERE)).pixels)
    for fields in ({"prompt": "a red circle"}, {"detail": "decoder"}):
        with pytest.raises(EditError, match='a prompt, or the detail "decoder", needs a model'):
            edit(None, photo, Delete((), object=HERE), **fields)
    with pytest.raises(EditError, match="selecting elements by number needs `divide`"):
        edit(None, photo, Delete((1,)))


def test_the_light_decoder_guides_and_paints_without_stage_2(pipeline):
    light = EditSession(stage_1_of(pipeline), divide, "quarters")
    photo = photograph(200, 300)
    after = edit(light, photo, Delete((), object=HERE))
    assert (after.pixels != photo.pixels).any()
    painted = edit(light, photo, Delete((), object=HERE), detail="decoder")
    assert (painted.pixels != after.pixels).any()
    with pytest.raises(EditError, match="needs a model with a diffusion decoder, such as tiny; this one has none"):
        edit(light, photo, Duplicate((), (0.3, 0.0), object=HERE), prompt="a red circle")  # without a hole


@pytest.mark.parametrize("detail", ["pixels", "decoder"])
def test_a_script_without_changes_returns_the_photograph(editing, detail):
    photo = photograph(30, 40)
    assert edit(editing, photo, detail=detail) is photo


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 2), (16, 16), (17, 400)])
@pytest.mark.parametrize("detail", ["pixels", "decoder"])
def test_photographs_of_any_size_are_edited(editing, size, detail):
    photo = photograph(*size)
    after = edit(editing, photo, Delete((0,)), detail=detail, fit="pad" if size[0] > 16 else "crop")
    assert after.size == size


def test_elements_are_of_the_encoded_square(editing):
    photo = photograph(80, 120)
    after = edit(editing, photo, Move((0,), (0.5, 0.0)))  # the upper left quarter of the middle square
    np.testing.assert_array_equal(after.pixels[8:32, 68:92], photo.pixels[8:32, 28:52])
    np.testing.assert_array_equal(after.pixels[:, :10], photo.pixels[:, :10])
    with pytest.raises(EditError, match=r"edits\[0\] \(delete\): element 7 does not exist"):
        edit(editing, photo, Delete((7,)))


@pytest.mark.parametrize("detail", ["pixels", "decoder"])
def test_objects_of_other_photographs_come_in(editing, detail):
    photo, other = photograph(80, 120), photograph(160, 240, seed=1)
    step = Compose("other", (), (0.25, 0.25), object=HERE)
    after = edit(editing, photo, step, pictures={"other": other}, detail=detail)
    changed = (after.pixels != photo.pixels).any(axis=-1)
    assert changed[32:35, 37:40].all()  # at its place in the image, and a quarter further; half its size
    assert not changed[:5].any()
    if detail == "pixels":
        assert not changed[45:].any()


def test_continues_from_an_earlier_result(editing):
    photo, first = photograph(80, 120), photograph(80, 120, seed=1)
    after = edit(
        editing, photo, Delete((0,)), Continue("first"), Move((), (0.2, 0.0), object=HERE), pictures={"first": first}
    )
    np.testing.assert_array_equal(after.pixels[60:], first.pixels[60:])
    with pytest.raises(EditError, match="does not have the photograph's size"):
        edit(editing, photo, Continue("first"), pictures={"first": photograph(80, 121)})


def test_a_mask_file_selects_at_any_resolution(editing):
    photo, mask = photograph(80, 120), np.zeros((40, 60, 1), np.uint8)
    mask[10:20, 5:15] = 255
    at = ObjectAt(mask="mask.png")
    masks = {"mask.png": Photograph(mask, b"", "PNG")}
    after = edit(editing, photo, Move((), (0.5, 0.0), object=at), pictures=masks)
    np.testing.assert_array_equal(after.pixels[24:36, 74:86], photo.pixels[24:36, 14:26])
    with pytest.raises(EditError, match=r"edits\[0\] \(delete\): the mask mask.png has 60 x 40 px"):
        edit(editing, photograph(80, 80), Delete((), object=at), pictures=masks)
    with pytest.raises(EditError, match="no object was found there"):
        edit(editing, photo, Delete((), object=at), pictures={"mask.png": Photograph(0 * mask, b"", "PNG")})


@pytest.mark.parametrize("detail", ["pixels", "decoder"])
def test_an_edit_can_be_cancelled(editing, detail):
    with pytest.raises(Cancelled):
        edit(editing, photograph(80, 120), Delete((0,)), report=lambda: False, detail=detail)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (2, np.uint8), (4, np.uint8), (1, np.uint16), (3, np.uint16)]
)
@pytest.mark.parametrize("detail", ["pixels", "decoder"])
def test_every_kind_of_pixel_is_edited_and_kept(editing, channels, dtype, detail):
    photo = photograph(60, 300, channels=channels, dtype=dtype)
    after = edit(editing, photo, Move((), (0.05, 0.0), object=HERE), detail=detail)
    assert (after.pixels.shape, after.pixels.dtype) == (photo.pixels.shape, photo.pixels.dtype)
    np.testing.assert_array_equal(after.pixels[:, 150:], photo.pixels[:, 150:])
    assert (after.pixels != photo.pixels).any()
