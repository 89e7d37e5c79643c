"""The bundled model of photographs: complete, small, and as good as its card says."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage", reason="its photographs are needed, and SLIC, which divides them")

from skimage import data

from configs import photo
from elements_jax import PHOTO
from elements_jax.checkpoints.model_folder import read_config
from elements_jax.cli.main import main
from elements_jax.data.photo import Photo
from elements_jax.data.record import DROPPED
from elements_jax.metrics.image_quality import psnr
from elements_jax.pipeline.pipeline import ElementsPipeline
from partition import divide
from tests.helpers.photographs import saved

SIZE = photo.MODEL_128.elements.image_size
HOLE = np.s_[48:80, 56:88]


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    """Photographs that it was not trained on."""
    images = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
    return [divide(saved(Image.fromarray(image), "PNG"), size=SIZE, segmenter="slic") for image in images]


@pytest.fixture(scope="module")
def pipeline() -> ElementsPipeline:
    return ElementsPipeline.from_pretrained("photo")


def test_is_stage_1_of_the_preset_and_small() -> None:
    assert read_config(PHOTO) == photo.MODEL_128
    assert sum(path.stat().st_size for path in PHOTO.rglob("*") if path.is_file()) < 10e6
    assert (PHOTO / "README.md").is_file()


def reconstruct(pipeline: ElementsPipeline, images: np.ndarray, label_maps: np.ndarray) -> np.ndarray:
    return pipeline.reconstruct(pipeline.encode_batch(images, label_maps).elements)


def test_reconstructs_photographs(pipeline: ElementsPipeline, photos: list[Photo]) -> None:
    """The bound is a decibel below its score when it was made."""
    images, label_maps = (np.stack([getattr(photo, name) for photo in photos]) for name in ("image", "label_map"))
    made = reconstruct(pipeline, images, label_maps)
    assert psnr(jnp.asarray(made / 255), jnp.asarray(images / 255)).mean() > 25.4


def test_fills_holes_better_than_a_flat_colour(pipeline: ElementsPipeline, photos: list[Photo]) -> None:
    images, label_maps = (np.stack([getattr(photo, name) for photo in photos]) for name in ("image", "label_map"))
    label_maps[:, *HOLE] = DROPPED
    hole = np.zeros(images.shape[1:3], bool)
    hole[HOLE] = True

    def error(fill: np.ndarray) -> float:
        return float(np.mean((fill - images[:, hole].astype(float)) ** 2))

    made = reconstruct(pipeline, images, label_maps)
    assert error(made[:, hole]) < error(images[:, ~hole].mean(1, keepdims=True))


def test_is_the_default_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, script, encoded, out = (tmp_path / name for name in ("cat.png", "edit.json", "cat.npz", "out.png"))
    Image.fromarray(data.chelsea()).save(picture)
    script.write_text(json.dumps({"version": 1, "edits": [{"edit": "delete", "elements": [130, 131]}]}))
    assert main(["encode", str(picture), str(encoded)]) == 0
    assert "paints at 128 px" in (notice := capsys.readouterr().err)
    assert "SLIC" in notice
    for command in (["reconstruct"], ["edit", "--script", str(script), "--out"]):
        assert main([command[0], str(encoded), *command[1:], str(out)]) == 0
        with Image.open(out) as made:
            assert made.size == (SIZE, SIZE)
            assert {"weights", "seed"} <= made.text.keys()
            assert "sampler" not in made.text  # the light decoder takes no steps
    script.write_text(json.dumps({"version": 1, "edits": [], "prompt": "a dog"}))
    assert main(["edit", str(encoded), "--script", str(script), "--out", str(out), "--overwrite"]) == 1
    assert "a prompt needs a model with a diffusion decoder, such as tiny" in capsys.readouterr().err
