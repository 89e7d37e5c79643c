"""Encoded files keep how they were made, and damaged ones are one clear error."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elements_jax.cli.main import main
from elements_jax.data.encoded import read_encoded, write_encoded
from elements_jax.pipeline.pipeline import ElementsPipeline

ARRAYS = {
    "image": np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8),
    "label_map": np.repeat(np.arange(4, dtype=np.uint16), 64).reshape(16, 16),
    "box": np.array([0, 2, 16, 14]),
    "content": np.zeros((4, 8), np.float32),
    "position": np.zeros((4, 4), np.float32),
    "valid": np.ones(4, bool),
}
SETTINGS = {"segmenter": "grid", "fit": "pad", "partition": {"size": 16, "grid": 2}}


@pytest.fixture
def encoded(tmp_path):
    write_encoded(tmp_path / "photo.npz", ARRAYS, SETTINGS)
    return tmp_path / "photo.npz"


def test_a_file_reads_back(encoded):
    found = read_encoded(encoded)
    np.testing.assert_array_equal(found.image, ARRAYS["image"])
    np.testing.assert_array_equal(found.label_map, ARRAYS["label_map"])
    assert (found.box, found.num_elements, found.settings) == ((0, 2, 16, 14), 4, SETTINGS)


def test_an_archive_that_points_before_its_start_is_damaged(tmp_path):
    path = tmp_path / "photo.npz"
    write_encoded(path, ARRAYS, SETTINGS)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x05\x06") + 17] += 1  # the file seems to begin 256 bytes earlier
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"photo\.npz: not a file that `elements encode` wrote, or damaged"):
        read_encoded(path)


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_file_is_read_right_or_named(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "photo.npz"
    write_encoded(path, ARRAYS, SETTINGS)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    message = str(path)
    try:
        found = read_encoded(path)
    except ValueError as error:
        message = str(error)
    else:
        np.testing.assert_array_equal(found.image, ARRAYS["image"])
        np.testing.assert_array_equal(found.label_map, ARRAYS["label_map"])
    assert message.startswith(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_map": ARRAYS["label_map"].astype(np.float32)}, r"label_map is float32 \(16, 16\)"),
        ({"image": ARRAYS["image"][:8]}, r"image is uint8 \(8, 16, 3\)"),
        ({"image": ARRAYS["image"] / 255}, r"image is float64"),
        ({"label_map": ARRAYS["label_map"] + 1}, "label_map has labels beyond its 4 elements"),
        ({"box": np.array([0, 0, 17, 16])}, r"box \[0, 0, 17, 16\] is not inside"),
        ({"box": np.array(3)}, r"box is int64 \(\)"),
        ({"valid": np.ones(4)}, "valid is float64"),
    ],
)
def test_arrays_of_wrong_kinds_are_named(tmp_path, change, message):
    write_encoded(tmp_path / "photo.npz", ARRAYS | change, SETTINGS)
    with pytest.raises(ValueError, match=rf"photo.npz: .*{message}"):
        read_encoded(tmp_path / "photo.npz")


def test_a_result_states_how_its_file_was_encoded(tmp_path, pipeline, monkeypatch, capsys):
    """The script in the result of a padded, grid-segmented photograph gives the same result on the photograph."""
    pytest.importorskip("skimage")
    monkeypatch.setattr(ElementsPipeline, "from_pretrained", lambda *_, **__: pipeline)
    photo, encoded, script = tmp_path / "photo.png", tmp_path / "encoded", tmp_path / "edit.json"
    Image.fromarray(ARRAYS["image"]).resize((40, 32)).save(photo)
    assert main(["encode", str(photo), str(encoded), "--model", "m", "--segmenter", "grid", "--fit", "pad"]) == 0
    script.write_text(json.dumps({"version": 1, "edits": [{"edit": "delete", "elements": [0]}]}))
    capsys.readouterr()
    out = tmp_path / "out.png"
    assert main(["edit", str(encoded), "--script", str(script), "--model", "m", "--out", str(out)]) == 0
    assert "SLIC" not in capsys.readouterr().err
    with Image.open(out) as result:
        text, size = result.text, result.size
    assert json.loads(text["script"])["fit"] == "pad"
    assert text["segmenter"] == "grid"
    assert size == (16, 13)
    settings = read_encoded(encoded).settings
    assert settings["fit"] == "pad"
    assert settings["partition"]["grid"] == 2


def test_a_file_of_another_model_is_refused(tmp_path, pipeline, monkeypatch, capsys):
    monkeypatch.setattr(ElementsPipeline, "from_pretrained", lambda *_, **__: pipeline)
    larger = {"image": np.zeros((32, 32, 3), np.uint8), "label_map": np.zeros((32, 32), np.uint16)}
    write_encoded(tmp_path / "photo.npz", ARRAYS | larger, SETTINGS)
    assert main(["reconstruct", str(tmp_path / "photo.npz"), str(tmp_path / "out.png"), "--model", "m"]) == 1
    assert "encoded for a model of 32 px and 4 elements, and this one has 16 px" in capsys.readouterr().err
