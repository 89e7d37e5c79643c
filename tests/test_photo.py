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
from elements_jax.data.record import DROPPED
from elements_jax.editing.edits import stack
from elements_jax.metrics.image_quality import psnr
from elements_jax.pipeline.pipeline import ElementsPipeline
from partition.components import partition_image
from partition.config import PartitionConfig
from partition.segmenters.superpixels import Slic

SIZE = photo.MODEL_128.elements.image_size
HOLE = np.s_[48:80, 56:88]


def square(image: np.ndarray) -> np.ndarray:
    """Cut out the square at the centre, at the model's size."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    cut = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(cut.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Photographs that it was not trained on."""
    return np.stack([square(image()) for image in (data.astronaut, data.chelsea, data.coffee, data.rocket)])


@pytest.fixture(scope="module")
def label_maps(pictures: np.ndarray) -> np.ndarray:
    config = PartitionConfig(size=SIZE, grid=photo.MODEL_128.elements.grid)
    return np.stack([partition_image(picture, Slic(config), config).label_map for picture in pictures])


@pytest.fixture(scope="module")
def pipeline() -> ElementsPipeline:
    return ElementsPipeline.from_pretrained("photo")


def test_is_stage_1_of_the_preset_and_small() -> None:
    assert read_config(PHOTO) == photo.MODEL_128
    assert sum(path.stat().st_size for path in PHOTO.rglob("*") if path.is_file()) < 10e6
    assert (PHOTO / "README.md").is_file()


def test_reconstructs_photographs(pipeline: ElementsPipeline, pictures: np.ndarray, label_maps: np.ndarray) -> None:
    """The bound is a decibel below its score when it was made."""
    canvases = [pipeline.encode(*each) for each in zip(pictures, label_maps, strict=True)]
    made = pipeline.reconstruct(stack(canvases).elements)
    assert psnr(jnp.asarray(made / 255), jnp.asarray(pictures / 255)).mean() > 21.5


def test_fills_holes_better_than_a_flat_colour(
    pipeline: ElementsPipeline, pictures: np.ndarray, label_maps: np.ndarray
) -> None:
    def error(fill: np.ndarray) -> float:
        return float(np.mean((fill - pictures[:, *HOLE].astype(float)) ** 2))

    without = label_maps.copy()
    without[:, *HOLE] = DROPPED
    canvases = [pipeline.encode(*each) for each in zip(pictures, without, strict=True)]
    made = pipeline.reconstruct(stack(canvases).elements)[:, *HOLE]
    around = np.ones(pictures.shape[1:3], bool)
    around[HOLE] = False
    assert error(made) < error(pictures[:, around].mean(1)[:, None, None])


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
    script.write_text(json.dumps({"version": 1, "edits": [], "prompt": "a dog"}))
    assert main(["edit", str(encoded), "--script", str(script), "--out", str(out), "--overwrite"]) == 1
    assert "a prompt needs a model with a diffusion decoder, such as tiny" in capsys.readouterr().err
