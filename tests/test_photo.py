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
from elements_jax.checkpoints.model_folder import load_networks, read_config
from elements_jax.cli.main import main
from elements_jax.data.photo import Photo
from elements_jax.data.record import DROPPED
from elements_jax.metrics.image_quality import psnr
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import ElementsPipeline
from partition import divide
from tests.helpers.photographs import saved
from train.start import with_scaling_factor

SIZE = photo.MODEL.elements.image_size
PRESETS = {"photo": photo.MODEL, "photo_128": photo.MODEL_128}
BOUNDS = {256: 23.7, 128: 25.4}  # dB
VAE_BOUND = 32.2


@pytest.fixture(scope="module", params=PRESETS)
def pipeline(request: pytest.FixtureRequest) -> ElementsPipeline:
    return ElementsPipeline.from_pretrained(request.param)


@pytest.fixture(scope="module")
def photos(pipeline: ElementsPipeline) -> list[Photo]:
    """Photographs that it was not trained on."""
    images = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
    return [
        divide(saved(Image.fromarray(image), "PNG"), size=pipeline.image_size, segmenter="slic") for image in images
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_is_stage_1_of_the_preset_and_small(name: str) -> None:
    folder = PHOTO.with_name(name)
    config = read_config(folder)
    assert config == with_scaling_factor(PRESETS[name], config.vae.scaling_factor)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10e6
    assert (folder / "README.md").is_file()


def reconstruct(pipeline: ElementsPipeline, images: np.ndarray, label_maps: np.ndarray) -> np.ndarray:
    return pipeline.reconstruct(pipeline.encode_batch(images, label_maps).elements)


def test_reconstructs_photographs(pipeline: ElementsPipeline, photos: list[Photo]) -> None:
    """The bounds are a decibel below the scores when the models were made."""
    images, label_maps = (np.stack([getattr(photo, name) for photo in photos]) for name in ("image", "label_map"))
    made = reconstruct(pipeline, images, label_maps)
    assert psnr(jnp.asarray(made / 255), jnp.asarray(images / 255)).mean() > BOUNDS[pipeline.image_size]


def test_its_vae_reconstructs_photographs() -> None:
    """The bound is a decibel below the score when it was made."""
    networks = Networks(read_config(PHOTO))
    vae = networks.vae.module(load_networks(PHOTO, networks, ["vae"])["vae"])
    pictures = [Image.fromarray(each()).resize((SIZE, SIZE)) for each in (data.astronaut, data.chelsea, data.coffee)]
    truth = jnp.stack([np.asarray(each) / 255 for each in pictures])
    mean, _ = vae.encode(2 * truth - 1)
    assert psnr((vae.decode(mean) + 1) / 2, truth).mean() > VAE_BOUND
    assert jnp.std(mean * networks.config.vae.scaling_factor) == pytest.approx(1, abs=0.1)


def test_fills_holes_better_than_a_flat_colour(pipeline: ElementsPipeline, photos: list[Photo]) -> None:
    images, label_maps = (np.stack([getattr(photo, name) for photo in photos]) for name in ("image", "label_map"))
    hole = np.zeros((16, 16), bool)
    hole[6:10, 7:11] = True
    hole = np.kron(hole, np.ones((pipeline.image_size // 16,) * 2, bool))
    label_maps[:, hole] = DROPPED

    def error(fill: np.ndarray) -> float:
        return float(np.mean((fill - images[:, hole].astype(float)) ** 2))

    made = reconstruct(pipeline, images, label_maps)
    assert error(made[:, hole]) < error(images[:, ~hole].mean(1, keepdims=True))


def test_is_the_default_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, script, encoded, out = (tmp_path / name for name in ("cat.png", "edit.json", "cat.npz", "out.png"))
    Image.fromarray(data.chelsea()).save(picture)
    script.write_text(json.dumps({"version": 1, "edits": [{"edit": "delete", "elements": [130, 131]}]}))
    assert main(["encode", str(picture), str(encoded)]) == 0
    assert "paints at 256 px" in (notice := capsys.readouterr().err)
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
