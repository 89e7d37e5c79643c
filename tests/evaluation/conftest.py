"""Scenes of 32 px under a partition into squares, and a model of a few thousand parameters that takes them."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from elements_jax import scenes
from elements_jax.config import ElementsConfig
from elements_jax.model_folder import save_network, write_config
from elements_jax.networks import Networks
from elements_jax.pipeline import ElementsPipeline
from elements_jax.records import shard_path, write_tfrecord
from elements_jax.schema import Record
from tests.train.conftest import SMALL
from train.text import write_tokenizer

SIZE, GRID = 32, 8
SCENES = dataclasses.replace(
    SMALL,
    elements=ElementsConfig(image_size=SIZE, grid=GRID, patch_size=4, content_channels=8, frequencies=2),
    text=dataclasses.replace(SMALL.text, max_length=32),
)


def squares(size: int = SIZE, grid: int = GRID) -> np.ndarray:
    cell = np.arange(size) * grid // size
    return (cell[:, None] * grid + cell).astype(np.uint16)


def cells(seed: int, count: int = GRID**2, size: int = SIZE) -> np.ndarray:
    """Another partition: the nearest of random points."""
    points = np.random.default_rng(seed).uniform(0, size, (count, 1, 1, 2))
    at = np.stack(np.mgrid[:size, :size], -1) + 0.5
    return np.argmin(((at - points) ** 2).sum(-1), axis=0).astype(np.uint16)


def scene_record(seed: int, label_map: np.ndarray | None = None) -> Record:
    described = scenes.scene(seed, SIZE)
    image, objects = scenes.render(described)
    masks = np.stack([objects == k for k in range(1, len(described.shapes) + 1)])
    label_map = squares() if label_map is None else label_map
    return Record(image, label_map, described.caption, masks, f"scene-{seed:07d}.png", {"num_elements": GRID**2})


@pytest.fixture(scope="session")
def scene_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene-records")
    write_tfrecord(shard_path(folder, "val", 0, 1), (scene_record(seed).to_example("png") for seed in range(4)))
    return folder


@pytest.fixture(scope="session")
def scene_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random numbers of NumPy's: to compile the networks' own initialisation takes longer than all tests."""
    folder, rng, networks = tmp_path_factory.mktemp("scene-model"), np.random.default_rng(0), Networks(SCENES)
    write_config(folder, SCENES)
    for name in ("encoder", "decoder", "vae", "text_encoder", "unet"):
        shapes = {key: spec.shape for key, spec in getattr(networks, name).shapes().items()}
        drawn = {
            key: np.float32(rng.normal(key.endswith("scale"), 1 / math.sqrt(math.prod(shape[:-1])), shape))
            for key, shape in shapes.items()
        }
        save_network(folder, name, drawn)
    write_tokenizer(folder / "tokenizer", ["a red square", "a blue square"], SCENES.text)
    return folder


@pytest.fixture(scope="session")
def scene_pipeline(scene_model: Path) -> ElementsPipeline:
    return ElementsPipeline.from_pretrained(scene_model)
