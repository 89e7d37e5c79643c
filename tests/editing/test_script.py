"""Edit scripts: reading, errors and their messages, and the effect of applying one."""

import json
import math
import struct
import zlib
from dataclasses import replace

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from elements_jax.editing import edits
from elements_jax.editing.apply import apply_script
from elements_jax.editing.edits import Canvas
from elements_jax.editing.png import encode_png
from elements_jax.editing.script import (
    JSON_SCHEMA,
    Compose,
    Continue,
    Delete,
    Duplicate,
    EditError,
    EditScript,
    Move,
    Resize,
    Sampling,
)
from elements_jax.elements import ImageElements

numbers = st.lists(st.integers(0, 300), min_size=1, max_size=4, unique=True).map(tuple)
vectors = st.tuples(st.floats(-4, 4), st.floats(-4, 4))
scales = st.floats(0.01, 100) | st.tuples(st.floats(0.01, 100), st.floats(0.01, 100))
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
any_edit = st.one_of(
    st.tuples(st.just(Move), numbers, vectors),
    st.tuples(st.just(Resize), numbers, scales, st.none() | vectors),
    st.tuples(st.just(Delete), numbers),
    st.tuples(st.just(Duplicate), numbers, vectors, scales),
    st.tuples(st.just(Compose), names, numbers, vectors, scales),
    st.tuples(st.just(Continue), names),
)


samplings = st.builds(
    Sampling,
    st.none() | st.sampled_from(["ddim", "euler", "dpm"]),
    st.none() | st.integers(1, 1000),
    st.none() | st.floats(-100, 100),
    st.none() | st.floats(-100, 100),
    st.none() | st.floats(0, 1),
)


@given(
    st.lists(any_edit, max_size=4),
    st.text(),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.text(),
    st.sampled_from(["crop", "pad"]),
    st.booleans(),
    samplings,
)
def test_a_script_survives_json(drawn, prompt, seed, tolerance, negative, fit, preserve, sampling):
    edits = tuple(kind(*fields) for kind, *fields in drawn)
    script = EditScript(edits, prompt, seed, tolerance, negative, fit, preserve, sampling)
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
        ({"version": 1, "edits": {}}, "edits: expected a list of at most 10000 edits"),
        ({"version": 1, "colour": "red"}, "colour: unknown field; expected edits, prompt, seed, tolerance, neg"),
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
        (
            {"version": 1, "edits": [{"edit": "duplicate", "elements": [1], "by": [0, 0], "scale": [1, 0]}]},
            r"edits\[0\]\.scale: expected a number from 0.01 to 100, or two, of x and of y",
        ),
        ({"version": 1, "edits": [{"edit": "continue", "image": "a\0"}]}, r"edits\[0\]\.image: expected the name"),
        ({"version": 1, "edits": [{"edit": "continue"}]}, r"edits\[0\]\.image: missing"),
        ({"version": 1, "edits": [{"edit": "delete", "elements": [1], "by": 1}]}, r"edits\[0\]\.by: unknown field"),
        ({"version": 1, "edits": [7]}, r'edits\[0\]: expected an object whose field "edit"'),
        ({"version": True}, "version: expected 1"),
        ({"version": 1, "seed": -1}, "seed: expected a whole number"),
        ({"version": 1, "prompt": "a" * 10_001}, "prompt: expected text of at most 10000 characters"),
        ({"version": 1, "preserve": "yes"}, "preserve: expected true or false"),
        ({"version": 1, "fit": "stretch"}, "fit: expected crop or pad"),
        ({"version": 1, "sampling": 20}, "sampling: expected an object"),
        ({"version": 1, "sampling": {"steps": 0}}, r"sampling\.steps: expected a whole number from 1 to 1000"),
        ({"version": 1, "sampling": {"colour": 0}}, r"sampling\.colour: unknown field; expected sampler, steps"),
    ],
)
def test_errors_name_the_field_and_the_expected_value(value, message):
    with pytest.raises(EditError, match=message):
        EditScript.from_json(json.dumps(value))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 10_000, "not JSON"),
        (b'{"version": 1, "seed": 1, "seed": 2}', "seed: given twice"),
        (b'{"version": 1, "edits": [{"edit": "delete", "elements": [1], "elements": [2]}]}', "elements: given twice"),
        (b"\x89PNG\r\n\x1a\n", "a PNG without an edit script"),
    ],
)
def test_errors_name_a_file_that_is_not_a_script(content, message, tmp_path):
    path = tmp_path / "edit.json"
    path.write_bytes(content)
    with pytest.raises(EditError, match=rf"edit\.json: {message}"):
        EditScript.load(path)


def test_a_result_carries_its_script(tmp_path):
    script = EditScript((Move((1,), (0.5, 0.0)),), "ein Schiff, grün", seed=7, sampling=Sampling(steps=3))
    path = tmp_path / "result.png"
    path.write_bytes(encode_png(np.zeros((4, 4, 3), np.uint8), script, {"steps": 3}))
    assert EditScript.load(path) == script
    with Image.open(path) as picture:
        assert picture.info["steps"] == "3"


def test_a_script_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "edit.json").write_bytes(b'\xef\xbb\xbf{"version": 1, "seed": 3}')
    assert EditScript.load(tmp_path / "edit.json").seed == 3


def test_a_script_is_found_behind_the_pixels_of_a_png(tmp_path):
    script = EditScript((Move((1,), (0.5, 0.0)),))
    path = tmp_path / "result.png"
    Image.new("L", (4, 4)).save(path)
    text = b"iTXtscript\0\0\0\0\0" + script.to_json().encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    end = path.read_bytes().index(b"IEND") - 4
    path.write_bytes(path.read_bytes()[:end] + chunk + path.read_bytes()[end:])
    assert EditScript.load(path) == script


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (EditScript(seed=2**32), r"seed: expected a whole number from 0 to 2\*\*32 - 1"),
        (EditScript(seed=-1), "seed: expected"),
        (EditScript(seed=2**70), "seed: expected"),
        (EditScript(sampling=Sampling(guidance=math.nan)), "sampling.guidance: expected a number from -100 to 100"),
        (EditScript(sampling=Sampling(steps=0)), "sampling.steps: expected a whole number from 1 to 1000"),
        (EditScript(sampling=Sampling(eta=math.inf)), "sampling.eta: expected a number from 0 to 1"),
    ],
)
def test_values_of_the_command_line_have_the_bounds_of_a_script(script, message):
    with pytest.raises(EditError, match=message):
        script.checked()
    if script.sampling != Sampling():
        with pytest.raises(EditError, match=message):
            script.sampling.checked()


@given(st.lists(any_edit, max_size=3))
def test_the_schema_accepts_written_scripts(drawn):
    script = EditScript(tuple(kind(*fields) for kind, *fields in drawn))
    jsonschema.validate(json.loads(script.to_json()), JSON_SCHEMA)


def test_the_schema_needs_a_version_and_knows_every_edit():
    assert JSON_SCHEMA["required"] == ["version"]
    kinds = JSON_SCHEMA["properties"]["edits"]["items"]["discriminator"]["mapping"]
    assert set(kinds) == {"move", "resize", "delete", "duplicate", "compose", "continue"}
    for wrong in ({}, {"version": 1, "seed": 0.5}, {"version": 1, "edits": [{"edit": "move", "elements": []}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, JSON_SCHEMA)


SIZE, N = 16, 20  # sixteen elements of 4 x 4 px, and four empty slots


def canvas(seed: int = 0) -> Canvas:
    cell = np.arange(SIZE) // 4
    label_map = cell[:, None] * 4 + cell
    centre = (np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2) + 0.5) / 4
    position = np.zeros((N, 4))
    position[:16] = np.concatenate([centre, np.full((16, 2), 0.25)], axis=1)
    content = np.random.default_rng(seed).normal(size=(N, 3))
    return Canvas(ImageElements(jnp.float32(content), jnp.float32(position), jnp.arange(N) < 16), jnp.int32(label_map))


def no_image(name, within):
    raise AssertionError(f"opened {name}")


def test_an_empty_script_is_the_identity():
    jax.tree.map(np.testing.assert_array_equal, apply_script(EditScript(), canvas(), no_image).canvas, canvas())


def test_edits_run_in_their_order():
    script = EditScript((Delete((1,)), Move((0,), (0.25, 0.0)), Resize((0,), 0.5)))
    after = apply_script(script, canvas(), no_image).canvas
    np.testing.assert_allclose(after.elements.position[0], [0.375, 0.125, 0.125, 0.125], atol=1e-6)
    assert after.elements.valid.sum() == 15
    expected = np.full((4, 4), N)
    expected[1:3, 1:3] = 0
    np.testing.assert_array_equal(after.label_map[:4, 4:8], expected)


def test_compose_opens_the_image_it_names():
    opened = []

    def open_image(name, within):
        assert within is None
        opened.append(name)
        return canvas(1)

    after = apply_script(EditScript((Compose("other.png", (5, 6), (0.25, 0.0)),)), canvas(), open_image).canvas
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
            r"edits\[0\] \(compose\): only \d+ of 16 elements fit",
        ),
    ],
)
def test_an_edit_that_cannot_be_done_is_named(script, message):
    with pytest.raises(EditError, match=message):
        apply_script(script, canvas(), lambda *_: canvas(1))


def test_a_resize_is_about_the_given_anchor():
    after = apply_script(EditScript((Resize((0,), 2.0, anchor=(0.0, 0.0)),)), canvas(), no_image).canvas
    np.testing.assert_allclose(after.elements.position[0], [0.25, 0.25, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(edits.centre(after, edits.element_mask(N, [0])), [0.25, 0.25], atol=1e-6)


def test_a_duplicate_is_a_copy_in_a_free_slot():
    after = apply_script(EditScript((Duplicate((0,), (0.5, 0.5), 0.5),)), canvas(), no_image).canvas
    slot = 10  # the first free slot, since the copy covered element 10
    np.testing.assert_array_equal(after.elements.content[slot], canvas().elements.content[0])
    np.testing.assert_allclose(after.elements.position[slot], [0.625, 0.625, 0.125, 0.125], atol=1e-6)
    np.testing.assert_array_equal(after.elements.valid, np.arange(N) < 16)
    assert (np.asarray(after.label_map) == slot).sum() == 4
    assert (np.asarray(after.label_map) == 0).sum() == 16


def test_the_two_axes_may_be_resized_apart():
    after = apply_script(EditScript((Resize((5,), (2.0, 1.0), anchor=(0.25, 0.25)),)), canvas(), no_image).canvas
    np.testing.assert_allclose(after.elements.position[5], [0.5, 0.375, 0.5, 0.25], atol=1e-6)
    expected = np.asarray(canvas().label_map).copy()
    expected[4:8, 4:12] = 5
    np.testing.assert_array_equal(after.label_map, expected)


def test_pixels_travel_with_their_elements():
    rng = np.random.default_rng(0)
    picture, other = (jnp.asarray(rng.integers(0, 256, (SIZE, SIZE, 3)), jnp.uint8) for _ in range(2))
    script = EditScript((Move((0,), (0.25, 0.0)), Compose("b", (15,), (-0.75, -0.75)), Duplicate((10,), (0.25, 0.0))))
    after = apply_script(
        script, replace(canvas(), picture=picture), lambda *_: replace(canvas(1), picture=other)
    ).canvas
    expected = np.asarray(picture).copy()
    expected[:4, 4:8] = picture[:4, :4]
    expected[:4, :4] = other[12:, 12:]
    expected[8:12, 12:] = picture[8:12, 8:12]
    np.testing.assert_array_equal(after.picture, expected)
    assert apply_script(script, canvas(), lambda *_: canvas(1)).canvas.picture is None


def test_continuing_fills_the_holes_of_edits_and_leaves_all_else():
    dropped = replace(canvas(), label_map=canvas().label_map.at[0, 0].set(N))  # belongs to no element initially
    script = EditScript((Delete((9,)), Move((5,), (0.25, 0.0)), Continue("round-1.png"), Delete((1,))))
    seen = []

    def open_image(name, within):
        seen.append((name, within))
        label_map = np.where(within, (np.arange(SIZE)[:, None] >= 8) * 1, N)
        position = jnp.zeros((N, 4)).at[:2].set(0.5)
        return Canvas(ImageElements(jnp.full((N, 3), 7.0), position, jnp.arange(N) < 2), jnp.int32(label_map))

    edited = apply_script(script, dropped, open_image)
    holes = np.zeros((SIZE, SIZE), bool)
    holes[4:8, 4:8] = holes[8:12, 4:8] = True
    assert seen[0][0] == "round-1.png"
    np.testing.assert_array_equal(seen[0][1], holes)
    np.testing.assert_array_equal(
        np.asarray(edited.reference.label_map) == N, np.arange(SIZE * SIZE).reshape(SIZE, -1) == 0
    )
    content = np.asarray(edited.reference.elements.content)
    np.testing.assert_array_equal(content[5], canvas().elements.content[5])  # moved, with the original's content
    filled = np.unique(np.asarray(edited.reference.label_map)[holes])
    assert len(filled) == 2
    np.testing.assert_array_equal(content[filled], 7)
    assert not edited.canvas.elements.valid[1]
    assert edited.reference.elements.valid[1]
