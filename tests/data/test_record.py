"""Records: contents are restored exactly, and errors name what does not fit."""

import io
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from elements_jax.data.record import DROPPED, Example, Record, with_cached

HEIGHT, WIDTH, COUNT = 12, 16, 6
FIELDS = [field.name for field in fields(Record) if field.name != "cached"]


def _record(masks: int = 2) -> Record:
    rng = np.random.default_rng(0)
    label_map = rng.integers(0, COUNT, (HEIGHT, WIDTH)).astype(np.uint16)
    label_map[3, 4] = DROPPED
    return Record(
        image=rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8),
        label_map=label_map,
        caption="a crêpe on a plate",
        object_masks=rng.random((masks, HEIGHT, WIDTH)) < 0.5,
        source_id="photos/crêpe.jpg",
        settings={"num_elements": COUNT, "segmenter": "slic", "beta": 64.0},
    )


def _assert_equal(a: Record, b: Record) -> None:
    for field in fields(Record):
        np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name), field.name)


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def _with_field(name: str, *values: bytes) -> bytes:
    """Return a stored record with one field replaced, or removed if there are no values."""
    example = Example.FromString(_record().to_example("png"))
    example.features.feature.pop(name, None)
    if values:
        example.features.feature[name].bytes_list.value.extend(values)
    return example.SerializeToString()


@settings(max_examples=40, deadline=None)
@given(
    label_map=arrays(np.uint16, (5, 7), elements=st.sampled_from([0, 1, 299, DROPPED])),
    object_masks=st.integers(0, 3).flatmap(lambda count: arrays(bool, (count, 5, 7))),
    image=arrays(np.uint8, (5, 7, 3)),
    caption=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_a_record_in_png_is_restored_exactly(label_map, object_masks, image, caption):
    record = Record(image, label_map, caption, object_masks, "seed 3", {"num_elements": 300})
    _assert_equal(Record.from_example(record.to_example("png"), "here"), record)


def test_jpeg_changes_the_image_alone_and_little():
    ramp = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).repeat(3, axis=2).astype(np.uint8)
    record = replace(_record(), image=ramp)
    read = Record.from_example(record.to_example(), "here")
    # A smooth image at quality 95: within a few grey levels.
    assert 0 < np.abs(read.image.astype(int) - ramp).max() <= 8
    _assert_equal(replace(read, image=ramp), record)


def test_the_same_record_gives_the_same_bytes():
    record = _record()
    shuffled = replace(record, settings=dict(reversed(record.settings.items())))
    assert record.to_example() == shuffled.to_example()


def test_masks_can_be_read_without_the_rest():
    record = _record(masks=3)
    read = Record.from_example(record.to_example(), "here", lambda count: [count - 1])
    np.testing.assert_array_equal(read.object_masks, record.object_masks[2:])


def test_cached_values_are_stored_in_the_record():
    record = _record()
    cached = {"latent_mean": np.float16([[0.1, -3], [65504, 6e-8]]), "text": np.zeros((2, 0), np.float16)}
    stored = with_cached(Example.FromString(record.to_example()), cached)
    assert with_cached(Example.FromString(stored), {}) == stored
    read = Record.from_example(stored, "here")
    flat = {name: array.reshape(-1) for name, array in cached.items()}
    _assert_equal(replace(read, image=record.image), replace(record, cached=flat))
    assert replace(record, cached=flat).to_example() == stored
    other = {"text": np.ones(3, np.float16)}  # replaces the old features
    assert (
        Record.from_example(with_cached(Example.FromString(stored), other), "here").cached["text"].tolist() == [1] * 3
    )


def test_tensorflow_reads_the_example():
    tf = pytest.importorskip("tensorflow")
    features = tf.train.Example.FromString(_record().to_example()).features.feature
    assert features["caption"].bytes_list.value[0].decode() == "a crêpe on a plate"
    assert len(features["object_masks"].bytes_list.value) == 2
    stored = tf.train.Example.FromString(_record(masks=0).to_example()).SerializeToString()
    assert len(Record.from_example(stored, "here").object_masks) == 0


def test_the_schema_needs_neither_tensorflow_nor_jax():
    code = """
import sys
sys.modules["jax"] = sys.modules["tensorflow"] = None  # importing either raises
import elements_jax.data.tfrecord, elements_jax.data.record
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((HEIGHT, WIDTH), np.uint8)}, r"image must be uint8 of shape \(\?, \?, 3\), got uint8"),
        ({"image": np.zeros((HEIGHT, WIDTH, 3), np.float32)}, "image must be uint8 .* got float32"),
        ({"image": np.zeros((0, WIDTH, 3), np.uint8)}, "image must have pixels"),
        ({"label_map": np.zeros((HEIGHT, WIDTH), np.int32)}, "label_map must be uint16 .* got int32"),
        ({"label_map": np.zeros((WIDTH, HEIGHT), np.uint16)}, r"label_map must be .* \(12, 16\), got .* \(16, 12\)"),
        (
            {"label_map": np.full((HEIGHT, WIDTH), COUNT, np.uint16)},
            "label_map must hold labels below num_elements = 6, .* got label 6",
        ),
        ({"object_masks": np.zeros((2, 8, 8), bool)}, r"object_masks must be bool of shape \(\?, 12, 16\)"),
        ({"settings": {}}, r"settings\['num_elements'\] must be an integer in \[1, 65535\], got None"),
        ({"settings": {"num_elements": True}}, r"settings\['num_elements'\] must be an integer"),
    ],
)
def test_a_field_that_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=f"record 'photos/crêpe.jpg': {message}"):
        replace(_record(), **change)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff", "expected a serialised tf.train.Example"),
        *((_with_field(name), f"field '{name}' is missing; the record has") for name in FIELDS),
        (_with_field("caption", b"a", b"b"), "field 'caption' must hold one value, got 2"),
        (_with_field("caption", b"\xff"), "field 'caption' must be UTF-8 text"),
        (_with_field("settings", b"{"), "field 'settings' must be JSON"),
        (_with_field("settings", b"[]"), "settings must be a dict, got"),
        (_with_field("image", _png(_record().image)[:-40]), "field 'image' must be a JPEG or PNG in RGB"),
        (_with_field("image", b"no picture"), "field 'image' must be a JPEG or PNG in RGB"),
        (_with_field("image", _png(_record().image[..., 0])), "field 'image' must be a JPEG or PNG in RGB: .* 'L'"),
        (
            _with_field("label_map", _png(_record().image[..., 0])),
            "field 'label_map' must be a 16-bit grey PNG: .* 'L'",
        ),
        (
            _with_field("label_map", _png(np.zeros((4, 4), np.uint16))),
            r"label_map must be .* got uint16 of shape \(4, 4\)",
        ),
        (_with_field("text", b"odd"), "field 'text' must be float16 numbers"),
        (_with_field("object_masks", b""), r"field 'object_masks\[0\]' must be a 1-bit PNG"),
        (_with_field("object_masks", _png(np.zeros((4, 4), bool))), "field 'object_masks' must be of the image's size"),
    ],
)
def test_a_damaged_record_is_named_with_its_field(data, message):
    with pytest.raises(ValueError, match=f"^file.tfrecord record 17: .*{message}"):
        Record.from_example(data, "file.tfrecord record 17")


def test_every_truncation_of_a_jpeg_is_noticed():
    stored = Example.FromString(_record().to_example("jpeg")).features.feature["image"].bytes_list.value[0]
    for length in range(0, len(stored) - 2, 7):  # the last two bytes only mark the end
        with pytest.raises(ValueError, match="here: field 'image'"):
            Record.from_example(_with_field("image", stored[:length]), "here")


def test_a_field_of_another_kind_is_named():
    example = Example.FromString(_record().to_example())
    example.features.feature["caption"].int64_list.value.append(3)
    with pytest.raises(ValueError, match="here: field 'caption' must be a bytes_list, got int64_list"):
        Record.from_example(example.SerializeToString(), "here")
