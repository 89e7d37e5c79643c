"""A model folder of a few thousand random parameters, and its pipeline."""

from pathlib import Path

import jax
import pytest

from elements_jax.config import ModelConfig
from elements_jax.model_folder import save_network, write_config
from elements_jax.networks import Networks
from elements_jax.pipeline import ElementsPipeline
from tests.train.conftest import SMALL
from train.text import write_tokenizer


def write_random_model(folder: Path, config: ModelConfig) -> Path:
    """A model folder with random parameters."""
    write_config(folder, config)
    networks = Networks(config)
    for i, name in enumerate(("encoder", "decoder", "vae", "text_encoder", "unet")):
        save_network(folder, name, getattr(networks, name).init(jax.random.key(i)))
    write_tokenizer(folder / "tokenizer", ["a red square", "a blue square"], config.text)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"), SMALL)


@pytest.fixture(scope="session")
def pipeline(model_folder: Path) -> ElementsPipeline:
    return ElementsPipeline.from_pretrained(model_folder)
