"""Edits of complete photographs with a model, or without one: only the edited parts change."""

import io
from dataclasses import replace

import numpy as np
import pytest
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
    Sampling,
)
from elements_jax.photograph import composition
from elements_jax.photograph.edit import edit_photograph
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.window import box_of
from elements_jax.pipeline.session import Cancelled, EditSession
from tests.helpers.models import stage_1_of
from tests.helpers.photographs import flat_fill, photograph, square

QUARTERS = (np.arange(16)[:, None] // 8 * 2 + np.arange(16) // 8).astype(np.uint16)


@pytest.fixture(autouse=True)
def _quick_fill(monkeypatch):
    monkeypatch.setattr(composition, "fill_hole", flat_fill)


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
