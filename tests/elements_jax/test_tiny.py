"""The model that comes with this package: whole, small, and as good as its card says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage", reason="SLIC, which divides the scenes, comes with the extras `partition` and `editor`")

from configs import tiny
from elements_jax import TINY, scenes
from elements_jax.cli import main
from elements_jax.edits import batched
from elements_jax.model_folder import read_config
from elements_jax.pipeline import ElementsPipeline
from partition.config import PartitionConfig
from partition.elements import partition_image
from partition.superpixels import Slic
from train.folder import with_scaling_factor

HELD_OUT = range(1_000_000, 1_000_008)


def test_it_is_the_preset_and_small() -> None:
    config = read_config(TINY)
    assert config == with_scaling_factor(tiny.MODEL, config.vae.scaling_factor)
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) < 25e6
    assert (TINY / "README.md").is_file()


def test_it_paints_held_out_scenes_again() -> None:
    """The bounds are a decibel below what it did when it was made."""
    pipeline = ElementsPipeline.from_pretrained(TINY)
    described = [scenes.scene(seed) for seed in HELD_OUT]
    pictures = np.stack([scenes.render(scene)[0] for scene in described])
    config = PartitionConfig(size=64, grid=8, compactness=40)
    label_maps = np.stack([partition_image(picture, Slic(config), config).label_map for picture in pictures])
    elements = batched(pipeline.open_batch(pictures, label_maps)).elements
    painted = pipeline.decode(elements, [scene.caption for scene in described], seeds=list(HELD_OUT), steps=20)

    def psnr(result: np.ndarray) -> float:
        error = np.mean((result / 255 - pictures / 255) ** 2, axis=(1, 2, 3))
        return float(np.mean(-10 * np.log10(error)))

    assert psnr(pipeline.reconstruct(elements)) > 21.3
    assert psnr(painted) > 19.0


def test_the_command_line_edits_with_it_when_no_model_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, script, out = tmp_path / "scene.png", tmp_path / "edit.json", tmp_path / "out.png"
    Image.fromarray(scenes.render(scenes.scene(1_000_004))[0]).save(photo)
    script.write_text(json.dumps({"version": 1, "edits": [{"edit": "delete", "elements": [0]}]}))
    assert main(["edit", str(photo), "--script", str(script), "--out", str(out), "--steps", "2"]) == 0
    with Image.open(out) as picture:
        assert picture.size == (64, 64)
    notice = capsys.readouterr().err
    assert "tiny" in notice
    assert "SLIC" in notice
