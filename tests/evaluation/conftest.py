"""Scenes of 32 px under a partition into squares, and a model of a few thousand parameters that takes them."""

import math
from pathlib import Path

import numpy as np
import pytest

from elements_jax.checkpoints.model_folder import save_network, write_config
from elements_jax.data.tfrecord import shard_path, write_tfrecord
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.scenes import SCENES, scene_record
from train.start import write_tokenizer


@pytest.fixture(scope="session")
def scene_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene-records")
    write_tfrecord(shard_path(folder, "val", 0, 1), (scene_record(seed).to_example("png") for seed in range(4)))
    return folder


@pytest.fixture(scope="session")
def scene_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with NumPy's random numbers: compiling the networks' own initialisation takes longer than all tests."""
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
