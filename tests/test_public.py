"""The public names of `import elements_jax` and `from partition import divide`."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

import elements_jax as ej
from elements_jax.checkpoints.model_folder import local_model
from partition import divide


def test_import_loads_neither_jax_nor_pytorch():
    code = "import elements_jax, partition, sys; print(*{'jax', 'flax', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_exists_and_is_documented():
    for name in ej.__all__:
        assert name == "TINY" or getattr(ej, name).__doc__, name
    assert set(ej.__all__) == set(dir(ej))
    with pytest.raises(AttributeError, match="no attribute 'moov'"):
        _ = ej.moov


def test_a_photograph_is_divided_edited_and_decoded(tmp_path, pipeline):
    file = tmp_path / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(file)
    photo = divide(file, size=pipeline.image_size, grid=pipeline.grid, segmenter="grid")
    canvas = pipeline.encode(photo.image, photo.label_map)
    moved = ej.move(canvas, [0], by=(0.25, 0.0))
    shift = np.asarray(moved.elements.position - canvas.elements.position)
    np.testing.assert_allclose(shift[0], [0.25, 0, 0, 0], atol=1e-6)
    assert not shift[1:].any()
    script = ej.EditScript.from_json('{"version": 1, "edits": [{"edit": "move", "elements": [0], "by": [0.25, 0]}]}')
    np.testing.assert_array_equal(ej.apply_script(script, canvas).canvas.label_map, moved.label_map)
    picture = pipeline.decode(moved, "a red square", seed=1)
    assert picture.shape == (16, 16, 3)
    assert picture.dtype == np.uint8


def test_elements_are_selected_by_numbers_or_by_a_mask(pipeline):
    canvas = pipeline.encode(np.zeros((16, 16, 3), np.uint8), np.arange(256).reshape(16, 16) // 64)
    mask = np.array([False, True, False, True])
    by = ej.Transform(jnp.float32(0.5), jnp.float32([0.25, 0]), jnp.float32([0.5, 0.5]))
    for edit in (
        lambda which: ej.delete(canvas, which),
        lambda which: ej.move(canvas, which, by=(0.25, 0)),
        lambda which: ej.resize(canvas, which, 0.5),
        lambda which: ej.transform(canvas, which, by),
        lambda which: ej.compose(ej.delete(canvas, [0, 2]), canvas, which, by)[0],
    ):
        expected = edit([1, 3])
        for other in (mask, jnp.asarray(mask)):
            jax.tree.map(np.testing.assert_array_equal, edit(other), expected)


def test_models_that_ship_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_model("tiny") == ej.TINY
    (tmp_path / "tiny").mkdir()
    assert local_model("tiny").samefile(tmp_path / "tiny")  # a local folder comes first
    assert local_model("weights/../tiny") != ej.TINY


def test_numbers_of_elements_are_checked(pipeline):
    canvas = pipeline.encode(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint16))
    with pytest.raises(ValueError, match=r"elements \[4, -1\] do not exist: the image has elements 0 to 3"):
        ej.delete(canvas, [0, 4, -1])


def test_notebooks_show_photographs_and_short_texts(tmp_path):
    photo = divide(skimage_png(tmp_path), size=32, grid=2, segmenter="grid")
    assert repr(photo) == "Photo(32 x 32 px, 4 labels)"
    assert photo._repr_png_().startswith(b"\x89PNG")
    photograph = ej.Photograph.load(skimage_png(tmp_path))
    assert photograph._repr_png_().startswith(b"\x89PNG")
    assert len(repr(photograph)) < 100


def skimage_png(folder):
    Image.fromarray(skimage.data.astronaut()).save(folder / "photo.png")
    return folder / "photo.png"
