"""The included model: complete, small, and as good as its card says."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("skimage", reason="SLIC, which divides the scenes, comes with the extras `partition` and `editor`")

from configs import tiny
from elements_jax import TINY
from elements_jax.checkpoints.model_folder import read_config
from elements_jax.evaluation.scenes.drawn_cases import elements_under, recoloured
from elements_jax.metrics.image_quality import psnr
from elements_jax.pipeline.pipeline import ElementsPipeline
from elements_jax.scenes import drawn
from partition.components import partition_image
from partition.config import PartitionConfig
from partition.segmenters.superpixels import Slic
from train.start import with_scaling_factor

SEEDS = range(1_000_000, 1_000_016)
HELD_OUT = [drawn.scene(seed) for seed in SEEDS]
PICTURES = np.stack([drawn.render(scene)[0] for scene in HELD_OUT])


def test_is_the_preset_and_small() -> None:
    config = read_config(TINY)
    assert config == with_scaling_factor(tiny.MODEL, config.vae.scaling_factor)
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) < 25e6
    assert (TINY / "README.md").is_file()


@pytest.fixture(scope="module")
def pipeline() -> ElementsPipeline:
    return ElementsPipeline.from_pretrained(TINY)


@pytest.fixture(scope="module")
def label_maps() -> np.ndarray:
    config = PartitionConfig(size=64, grid=8, compactness=40)
    return np.stack([partition_image(picture, Slic(config), config).label_map for picture in PICTURES])


def test_reconstructs_held_out_scenes(pipeline: ElementsPipeline, label_maps: np.ndarray) -> None:
    """The bounds are a decibel below its scores on the first eight scenes when it was made."""
    elements = pipeline.encode_batch(PICTURES, label_maps).elements
    painted = pipeline.decode_batch(elements, [scene.caption for scene in HELD_OUT], seeds=SEEDS, steps=20)
    light, diffused = (
        psnr(jnp.asarray(each[:8] / 255), jnp.asarray(PICTURES[:8] / 255)).mean()
        for each in (pipeline.reconstruct(elements), painted)
    )
    assert light > 21.3
    assert diffused > 20.3


def test_words_say_what_fills_a_hole(pipeline: ElementsPipeline, label_maps: np.ndarray) -> None:
    """Variation (Section 4.3): after the front object is deleted, "red" makes its place redder than "blue" does."""
    elements = pipeline.encode_batch(PICTURES, label_maps).elements
    objects = [drawn.render(scene)[1] == len(scene.shapes) for scene in HELD_OUT]
    valid = np.array(elements.valid)
    for i, (label_map, mask) in enumerate(zip(label_maps, objects, strict=True)):
        valid[i, list(elements_under(label_map, mask))] = False
    left = dataclasses.replace(elements, valid=jnp.asarray(valid))

    def redness(colour: str) -> np.ndarray:
        captions = [
            scene.delete(len(scene.shapes)).insert(recoloured(scene.shapes[-1], colour)).caption for scene in HELD_OUT
        ]
        painted = pipeline.decode_batch(left, captions, seeds=SEEDS, steps=20).astype(float)
        red, blue = painted[..., 0], painted[..., 2]
        return np.array([each[mask].mean() for each, mask in zip(red - blue, objects, strict=True)])

    redder = redness("red") - redness("blue")
    assert (redder > 10).mean() > 0.6  # it was 12 of 16
