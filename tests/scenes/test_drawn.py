"""The synthetic set: images that depend only on a seed, and edits with an exact truth."""

import dataclasses
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elements_jax.scenes import drawn
from elements_jax.scenes.drawn import COLOURS, SHAPES, TEXTURES, Scene, Shape, Texture, render, sample_edits, scene

SEEDS = st.integers(0, 10_000)


def _one(kind: str, texture: str = "plain", size: int = 64, **changes) -> Scene:
    """Return one shape in the middle of a plain background."""
    ground = Texture("plain", "light blue", ((200, 210, 240), (0, 0, 0)), 1.0, 0.0, (0.0, 0.0))
    tones = Texture(texture, "red", (COLOURS["red"], COLOURS["white"]), 0.9, 0.4, (0.3, 0.1))
    shape = Shape(kind, tones, centre=(0.5, 0.5), size=0.5, rotation=0.2)
    return Scene(ground, (dataclasses.replace(shape, **changes),), size)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_a_scene_shows_one_to_four_shapes_each_clearly(seed):
    described = scene(seed)
    image, label_map = render(described)
    assert image.shape == (64, 64, 3)
    assert label_map.shape == (64, 64)
    assert 1 <= len(described.shapes) <= 4
    assert set(np.unique(label_map)) == set(range(len(described.shapes) + 1))
    background = image[label_map == 0].astype(float)
    for k, shape in enumerate(described.shapes, start=1):
        own = image[label_map == k].astype(float)
        assert len(own) >= 64  # the area of an element in an 8 x 8 grid
        # It differs from the background in at least one channel.
        assert np.abs(np.median(own, axis=0) - np.median(background, axis=0)).max() > 40
        assert shape.texture.tones[0] == COLOURS[shape.texture.colour]


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS)
def test_captions_list_every_shape_in_words_of_the_lists(seed):
    described = scene(seed)
    words = set(described.caption.replace(",", "").split())
    assert words <= {"a", "an", "and", "on", "background", "light", "dark", *SHAPES, *COLOURS, *TEXTURES}
    for shape in described.shapes:
        assert f"{shape.words} " in described.caption.replace(",", " ")
    assert described.caption.endswith(f"{described.background.words} background")


def test_a_caption_reads_well():
    described = _one("circle", "striped")
    (red,) = described.shapes
    orange = dataclasses.replace(
        red, kind="star", texture=dataclasses.replace(red.texture, colour="orange", kind="plain")
    )
    assert described.caption == "a red striped circle on a light blue background"
    described = described.insert(orange)
    assert described.caption == "a red striped circle and an orange star on a light blue background"
    described = described.insert(red)
    assert described.caption == (
        "a red striped circle, an orange star and a red striped circle on a light blue background"
    )


def test_a_seed_gives_the_same_picture_in_every_process():
    code = "import hashlib; from elements_jax.scenes import drawn as d; "
    code += "print(hashlib.sha256(d.render(d.scene(7))[0]).hexdigest())"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    printed = {
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout
        for env in (environment, environment | {"PYTHONHASHSEED": "2"})
    }
    assert len(printed) == 1
    assert not np.array_equal(render(scene(7))[0], render(scene(8))[0])


def test_the_size_changes_only_the_resolution():
    small, _ = render(scene(3, size=32))
    large, _ = render(scene(3, size=128))
    reduced = large.reshape(32, 4, 32, 4, 3).mean((1, 3))
    # Both average the same plane, with 4 x 4 and with 16 x 16 samples per pixel.
    assert np.abs(reduced - small).mean() < 2


def test_edges_are_a_mixture_of_both_sides():
    image, _ = render(_one("circle"))
    red, blue = np.array(COLOURS["red"], float), np.array((200, 210, 240), float)
    share = (image - blue) @ (red - blue) / ((red - blue) @ (red - blue))
    np.testing.assert_allclose(image, blue + share[..., None] * (red - blue), atol=1)  # rounding
    assert set(np.unique(np.rint(16 * share))) <= set(range(17))
    assert len(np.unique(np.rint(16 * share))) > 5
    radius = 0.9 * 0.5 / 2  # see `circle`
    assert share.mean() == pytest.approx(math.pi * radius**2, rel=0.01)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_is_inside_its_circle_and_fills_most_of_it(kind):
    # The shapes' own functions on a plane twice as wide as the circle that must contain them.
    x, y = np.meshgrid(*2 * [np.linspace(-2, 2, 801)])
    inside = drawn._INSIDE[kind](x, y)
    assert np.hypot(x, y)[inside].max() <= 1.001
    assert inside.sum() / (np.hypot(x, y) <= 1).sum() > 0.3


@pytest.mark.parametrize("texture", TEXTURES)
def test_a_texture_moves_and_grows_with_its_shape(texture):
    described = _one("heart", texture)
    image, label_map = render(described)
    moved_image, moved_labels = render(described.move(1, dx=8 / 64, dy=-5 / 64))
    np.testing.assert_array_equal(moved_labels[:-8, 8:], np.roll(label_map, (-5, 8), (0, 1))[:-8, 8:])
    difference = np.abs(moved_image[:-8, 8:].astype(int) - np.roll(image, (-5, 8), (0, 1))[:-8, 8:])
    # By whole pixels, equal except for samples that float32 rounds to the other side of an edge.
    assert (difference.max(-1) > 1).mean() < 0.01
    # The middle of an image with twice the side shows the shape at twice the size.
    twice = render(described.resize(1, 2.0))[0][16:-16, 16:-16]
    large = render(dataclasses.replace(described, size=128))[0][48:-48, 48:-48]
    assert (np.abs(twice.astype(int) - large).max(-1) > 1).mean() < 0.01


def test_edits_change_only_their_shape_and_keep_the_order():
    described = next(s for s in map(scene, range(100)) if len(s.shapes) == 4)
    first, second, third, fourth = described.shapes
    moved = described.move(2, 0.1, -0.2)
    assert moved.shapes[0::2] == (first, third)
    assert moved.shapes[1] == dataclasses.replace(second, centre=(second.centre[0] + 0.1, second.centre[1] - 0.2))
    assert described.resize(3, 0.5).shapes[2] == dataclasses.replace(third, size=0.5 * third.size)
    assert described.delete(3).shapes == (first, second, fourth)
    assert described.delete(3).insert(third).shapes == (first, second, fourth, third)
    assert moved.background == described.background


def test_deleting_a_shape_shows_the_content_behind_it():
    behind = _one("square")
    front = dataclasses.replace(behind.shapes[0], kind="star", centre=(0.6, 0.6))
    np.testing.assert_array_equal(render(behind.insert(front).delete(2))[0], render(behind)[0])


def test_shapes_partly_or_wholly_outside_are_cut():
    described = _one("circle")
    half = (render(described.move(1, -0.5, 0.0))[1] == 1).sum()
    assert half == pytest.approx((render(described)[1] == 1).sum() / 2, rel=0.05)
    for dx, dy in ((2.0, 0.0), (0.0, -2.0), (-0.8, -0.8)):
        assert not render(described.move(1, dx, dy))[1].any()


@pytest.mark.parametrize("k", [0, 2])
def test_a_shape_that_does_not_exist_is_refused(k):
    described = _one("circle")
    for edit in (lambda: described.move(k, 0.0, 0.0), lambda: described.resize(k, 1.0), lambda: described.delete(k)):
        with pytest.raises(ValueError, match=f"the scene has shapes 1 to 1, got {k}"):
            edit()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_sampled_edits_show_the_complete_shape_before_and_after(seed):
    described = scene(seed)
    edits = sample_edits(described, seed)
    assert edits == sample_edits(described, seed)
    assert [edit.kind for edit in edits] == ["move", "resize", "delete"]
    before = render(described)[1]
    for edit in edits:
        alone = dataclasses.replace(described, shapes=(described.shapes[edit.k - 1],))
        whole = render(alone)[1] == 1
        assert (before[whole] == edit.k).all()
        if edit.kind != "delete":
            whole = render(alone.edited(dataclasses.replace(edit, k=1)))[1] == 1
            assert (render(described.edited(edit))[1][whole] == edit.k).all()
            assert whole.any()
    move, resize, _ = edits
    assert math.hypot(move.dx, move.dy) > 0.2
    assert 0.6 <= resize.scale <= 0.8 or 1.25 <= resize.scale <= 1.5


def test_a_folder_holds_pictures_captions_and_masks(tmp_path):
    drawn.write_folder(tmp_path, range(5, 8), size=32)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"scene-000000{seed}.png" for seed in (5, 6, 7)]
    image, label_map = render(scene(6, size=32))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "scene-0000006.png")), image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "masks" / "scene-0000006.png")), label_map)
    assert (tmp_path / "scene-0000006.txt").read_text().strip() == scene(6).caption


def test_tfds_builder_yields_scenes_and_edits_without_tensorflow(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    code = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec  # as if TensorFlow were not installed
PathFinder.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
import numpy as np
import tensorflow_datasets as tfds
from elements_jax.scenes.drawn import render, sample_edits, scene
from elements_jax.scenes.tfds_builder import Scenes

builder = Scenes(config="64px", data_dir=sys.argv[1], file_format="array_record")
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(max_examples_per_split=3))
examples = list(builder.as_data_source("test"))
assert len(examples) == 3 and len(builder.as_data_source("train")) == 3
for example in examples:
    seed = int(example["seed"])
    assert seed >= 1_000_000  # held out
    described = scene(seed)
    image, label_map = render(described)
    np.testing.assert_array_equal(example["image"], image)
    np.testing.assert_array_equal(example["label_map"][..., 0], label_map)
    assert example["caption"].decode() == described.caption
    edits = sample_edits(described, seed)
    assert len(example["edits"]["image"]) == len(edits) == 3
    for i, edit in enumerate(edits):
        stored = {name: values[i] for name, values in example["edits"].items()}
        np.testing.assert_array_equal(stored["image"], render(described.edited(edit))[0])
        assert ["move", "resize", "delete"][stored["kind"]] == edit.kind
        assert stored["k"] == edit.k
        x, y = described.shapes[edit.k - 1].centre
        for name, value in {"dx": edit.dx, "dy": edit.dy, "scale": edit.scale, "x": x, "y": y}.items():
            np.testing.assert_allclose(stored[name], value, rtol=1e-6, err_msg=name)
assert "tensorflow" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
