"""Scripts from photograph to image: progress, cancelling, margins, and rounds of editing without drift."""

import dataclasses
import io
import json

import numpy as np
import pytest
from jax import monitoring
from PIL import Image

from elements_jax.data.photo import Photo
from elements_jax.data.record import DROPPED
from elements_jax.editing.script import Continue, Delete, Duplicate, EditError, EditScript, Move, Sampling
from elements_jax.pipeline.session import Cancelled, EditSession
from tests.helpers.records import SMALL, record

WHOLE = (0, 0, 16, 16)
QUARTERS = (np.arange(16)[:, None] // 8 * 2 + np.arange(16) // 8).astype(np.uint16)


def divide(encoded: bytes, fit: str) -> Photo:
    """Segment an image of the model's size into quarters."""
    with Image.open(io.BytesIO(encoded)) as picture:
        return Photo(np.asarray(picture.convert("RGB")), QUARTERS, WHOLE)


@pytest.fixture(scope="module")
def editing(pipeline) -> EditSession:
    return EditSession(pipeline, divide, "quarters")


@pytest.fixture(scope="module")
def photo() -> Photo:
    return Photo(record(0).image, QUARTERS, WHOLE)


def decode(editing, photo, script, pictures=None):
    """Decode a script, which may name other images by their index in `pictures`."""

    def open_photo(name):
        return editing.open(editing.png(pictures[int(name)], script), "crop")

    return editing.decode(photo, editing.edit(photo, script, open_photo), script)


def test_every_step_is_reported_and_a_refusal_cancels(editing, photo):
    script = EditScript((Move((0,), (0.5, 0.0)),), sampling=Sampling(steps=5))
    edited = editing.edit(photo, script, lambda name: photo)
    asked = []

    def go_on_until(limit):
        def report():
            asked.append(len(asked))
            return len(asked) < limit

        return report

    picture = editing.decode(photo, edited, script, go_on_until(100))
    assert asked == [0, 1, 2, 3, 4]
    asked.clear()
    with pytest.raises(Cancelled):
        editing.decode(photo, edited, script, go_on_until(2))
    np.testing.assert_array_equal(editing.decode(photo, edited, script), picture)  # nothing of it is left


def test_progress_changes_an_image_only_by_rounding(editing, photo):
    script = EditScript(prompt="a red square", seed=3)
    canvas = editing.edit(photo, script, lambda name: photo).canvas
    plain = editing.pipeline.decode_batch(
        dataclasses.replace(
            canvas.elements,
            **{name: getattr(canvas.elements, name)[None] for name in ("content", "position", "valid")},
        ),
        ["a red square"],
        seeds=[3],
    )[0]
    assert np.abs(decode(editing, photo, script).astype(int) - plain).max() <= 1


def test_a_second_run_of_any_edit_compiles_nothing(editing, photo):
    pictures = [record(i).image for i in range(2)]

    def run(elements, by, seed):
        edits = (Delete(elements), Duplicate((3,), by, 0.5), Continue("0"), Move((3,), by))
        for preserve in (False, True):
            script = EditScript(edits, "a", seed, preserve=preserve, tolerance=0.5)
            editing.png(decode(editing, photo, script, pictures), script)

    run((0,), (-0.25, 0.0), 0)
    compiled = []

    def count(event, duration, **_):
        if "compile" in event:
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(count)
    run((0,), (0.0, -0.25), 7)
    run((1, 2), (-0.125, -0.125), 8)
    assert not compiled


def test_guidance_leads_away_from_the_negative_prompt(editing, photo):
    without, with_one = (
        decode(editing, photo, EditScript(prompt="a red square", negative_prompt=text))
        for text in ("", "a blue square")
    )
    assert (without != with_one).any()
    same = EditScript(prompt="a red square", negative_prompt="a red square", sampling=Sampling(element_guidance=3.0))
    other = dataclasses.replace(same, sampling=Sampling(guidance=50.0, element_guidance=3.0))
    difference = decode(editing, photo, same).astype(int) - decode(editing, photo, other)
    assert np.abs(difference).max() <= 1  # if both prompts are equal, the weight has no effect


def test_margins_are_cut_off(editing, photo):
    script = EditScript()
    padded = Photo(photo.image, np.where(np.arange(16)[:, None] < 4, DROPPED, QUARTERS), (0, 4, 16, 16))
    assert decode(editing, padded, script).shape == (12, 16, 3)
    canvas = editing.edit(padded, EditScript((Delete((0,)), Continue("0"))), lambda name: photo).canvas
    np.testing.assert_array_equal(np.asarray(canvas.label_map)[:4], SMALL.elements.num_elements)  # and stay empty


def test_large_elements_come_first_and_slivers_are_none(editing, photo):
    within = np.zeros((16, 16), bool)
    within[:2, :3] = True  # 6 of the 64 pixels of element 0
    within[8:, 8:] = True  # element 3
    within[8:, 6:8] = True  # 16 pixels of element 2
    canvas = editing.canvas(photo, within)
    expected = np.full((16, 16), 4)
    expected[8:, 8:], expected[8:, 6:8] = 0, 1
    np.testing.assert_array_equal(canvas.label_map, expected)


def test_ten_rounds_of_nothing_with_preserve_change_no_pixel(editing, photo):
    pictures, edits = [], ()
    for number in range(10):
        script = EditScript(edits, seed=number, preserve=True)
        pictures.append(decode(editing, photo, script, pictures))
        np.testing.assert_array_equal(pictures[-1], photo.image)
        edits = (*edits, Continue(str(number)))


def test_ten_rounds_without_keep_the_original_elements(editing, photo):
    """No pixels are read back from results, so each round is as close to the photograph as the first."""
    pictures, edits = [], ()
    for number in range(10):
        script = EditScript(edits)
        pictures.append(decode(editing, photo, script, pictures))
        np.testing.assert_array_equal(pictures[-1], pictures[0])
        edits = (*edits, Continue(str(number)))


def test_content_painted_in_one_round_is_kept_in_the_next(editing, photo):
    first = EditScript((Delete((0,)),), preserve=True, seed=1)
    painted = decode(editing, photo, first)
    second = dataclasses.replace(first, edits=(*first.edits, Continue("0")), seed=2)
    np.testing.assert_array_equal(decode(editing, photo, second, [painted]), painted)
    third = dataclasses.replace(second, edits=(*second.edits, Delete((3,))))
    kept = decode(editing, photo, third, [painted])
    np.testing.assert_array_equal(kept[:4, :4], painted[:4, :4])
    assert (kept[8:, 8:] != painted[8:, 8:]).any()


def test_a_result_has_all_that_made_it(editing, photo):
    script = EditScript((Move((0,), (0.5, 0.0)),), "a", 4, preserve=True, sampling=Sampling(steps=2))
    png = editing.png(decode(editing, photo, script), script)
    assert png == editing.png(decode(editing, photo, script), script)
    with Image.open(io.BytesIO(png)) as picture:
        info = picture.info
    assert EditScript.from_json(info["script"]) == script
    assert (info["steps"], info["sampler"], info["segmenter"]) == ("2", "ddim", "quarters")
    assert json.loads(info["preserve"]) is True
    assert info["weights"] == editing.pipeline.checksum()


def test_a_missing_image_to_continue_is_the_loaders_error(editing, photo):
    def nothing(name):
        raise EditError(f"no picture is called {name!r}")

    with pytest.raises(EditError, match="no picture is called 'a'"):
        editing.edit(photo, EditScript((Continue("a"),)), nothing)
