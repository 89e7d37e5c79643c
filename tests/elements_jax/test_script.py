"""Edit scripts: what is read, what is refused and how it is said, and what applying one does."""

import json

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from elements_jax import edits
from elements_jax.edits import Canvas
from elements_jax.elements import ImageElements
from elements_jax.script import Compose, Delete, EditError, EditScript, Move, Resize, apply

numbers = st.lists(st.integers(0, 300), min_size=1, max_size=4, unique=True).map(tuple)
vectors = st.tuples(st.floats(-4, 4), st.floats(-4, 4))
scales = st.floats(0.01, 100)
any_edit = st.one_of(
    st.tuples(st.just(Move), numbers, vectors),
    st.tuples(st.just(Resize), numbers, scales, st.none() | vectors),
    st.tuples(st.just(Delete), numbers),
    st.tuples(st.just(Compose), st.text(), numbers, vectors, scales),
)


@given(st.lists(any_edit, max_size=4), st.text(), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_script_survives_json(drawn, prompt, seed, tolerance):
    script = EditScript(tuple(kind(*fields) for kind, *fields in drawn), prompt, seed, tolerance)
    assert EditScript.from_json(script.to_json()) == script


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(["move", "delete"]),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["version", "edits", "edit", "by"]), inner),
    )
)
@settings(max_examples=200)
def test_any_json_is_either_a_script_or_an_edit_error(value):
    try:
        script = EditScript.from_json(json.dumps(value))
    except EditError:
        return
    assert EditScript.from_json(script.to_json()) == script


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected an object"),
        ({"edits": []}, "version: expected 1"),
        ({"version": 1, "edits": {}}, "edits: expected a list"),
        ({"version": 1, "colour": "red"}, "colour: unknown field; expected edits, prompt, seed, tolerance"),
        ({"version": 1, "edits": [{"edit": "rotate"}]}, r'edits\[0\]: expected an object whose field "edit" is one of'),
        ({"version": 1, "edits": [{"edit": "move", "elements": [1]}]}, r"edits\[0\]\.by: missing"),
        ({"version": 1, "edits": [{"edit": "delete", "elements": []}]}, r"edits\[0\]\.elements: expected a list"),
        ({"version": 1, "edits": [{"edit": "delete", "elements": [-1]}]}, r"edits\[0\]\.elements: expected a list"),
        ({"version": 1, "edits": [{"edit": "delete", "elements": [True]}]}, r"edits\[0\]\.elements: expected a list"),
        (
            {"version": 1, "edits": [{"edit": "move", "elements": [1], "by": [float("nan"), 0]}]},
            r"edits\[0\]\.by: expected \[x, y\], two numbers from -4 to 4",
        ),
        (
            {"version": 1, "edits": [{"edit": "resize", "elements": [1], "scale": 0}]},
            r"edits\[0\]\.scale: expected a number from 0.01 to 100",
        ),
        ({"version": 1, "seed": -1}, "seed: expected a whole number"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(value, message):
    with pytest.raises(EditError, match=message):
        EditScript.from_json(json.dumps(value))


def test_a_file_that_is_no_script_is_named(tmp_path):
    path = tmp_path / "edit.json"
    path.write_text("{")
    with pytest.raises(EditError, match=r"edit\.json: not JSON"):
        EditScript.load(path)


SIZE, N = 16, 20  # sixteen elements of 4 x 4 px, and four empty slots


def canvas(seed: int = 0) -> Canvas:
    cell = np.arange(SIZE) // 4
    label_map = cell[:, None] * 4 + cell
    centre = (np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2) + 0.5) / 4
    position = np.zeros((N, 4))
    position[:16] = np.concatenate([centre, np.full((16, 2), 0.25)], axis=1)
    content = np.random.default_rng(seed).normal(size=(N, 3))
    return Canvas(ImageElements(jnp.float32(content), jnp.float32(position), jnp.arange(N) < 16), jnp.int32(label_map))


def no_image(name):
    raise AssertionError(f"opened {name}")


def test_an_empty_script_is_the_identity():
    jax.tree.map(np.testing.assert_array_equal, apply(EditScript(), canvas(), no_image), canvas())


def test_edits_run_in_their_order():
    script = EditScript((Delete((1,)), Move((0,), (0.25, 0.0)), Resize((0,), 0.5)))
    after = apply(script, canvas(), no_image)
    np.testing.assert_allclose(after.elements.position[0], [0.375, 0.125, 0.125, 0.125], atol=1e-6)
    assert after.elements.valid.sum() == 15
    expected = np.full((4, 4), N)
    expected[1:3, 1:3] = 0
    np.testing.assert_array_equal(after.label_map[:4, 4:8], expected)


def test_compose_opens_the_image_it_names():
    opened = []

    def open_image(name):
        opened.append(name)
        return canvas(1)

    after = apply(EditScript((Compose("other.png", (5, 6), (0.25, 0.0)),)), canvas(), open_image)
    assert opened == ["other.png"]
    assert after.elements.valid.sum() == 16  # two deleted, two inserted
    new = {tuple(row) for row in np.asarray(canvas(1).elements.content)[[5, 6]].tolist()}
    kept = {tuple(row) for row in np.asarray(after.elements.content)[np.asarray(after.elements.valid)].tolist()}
    assert new <= kept


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            EditScript((Move((20,), (0.0, 0.0)),)),
            r"edits\[0\] \(move\): element 20 does not exist; the image has elements 0 to 19",
        ),
        (EditScript((Delete((17,)),)), r"edits\[0\] \(delete\): element 17 is empty or was deleted"),
        (EditScript((Delete((3,)), Delete((3,)))), r"edits\[1\] \(delete\): element 3 is empty or was deleted"),
        (
            EditScript((Move((0,), (0.25, 0.0)), Delete((1,)))),
            r"edits\[1\] \(delete\): element 1 is empty or was deleted",
        ),
        (
            EditScript((Compose("a.png", tuple(range(16)), scale=0.5),), tolerance=1.0),
            r"edits\[0\] \(compose\): only \d+ of 16 elements find a place",
        ),
    ],
)
def test_an_edit_that_cannot_be_done_is_named(script, message):
    with pytest.raises(EditError, match=message):
        apply(script, canvas(), lambda name: canvas(1))


def test_a_resize_is_about_the_given_anchor():
    after = apply(EditScript((Resize((0,), 2.0, anchor=(0.0, 0.0)),)), canvas(), no_image)
    np.testing.assert_allclose(after.elements.position[0], [0.25, 0.25, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(edits.centre(after, edits.selection(N, [0])), [0.25, 0.25], atol=1e-6)
