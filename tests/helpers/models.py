"""Model folders of random parameters."""

from pathlib import Path

import jax

from elements_jax.checkpoints.model_folder import save_network, write_config
from elements_jax.config import ModelConfig
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import ElementsPipeline
from train.start import write_tokenizer


def write_random_model(folder: Path, config: ModelConfig) -> Path:
    """Write a model folder with random parameters."""
    write_config(folder, config)
    write_tokenizer(folder / "tokenizer", ["a red square", "a blue square"], config.text)
    networks = Networks(config)
    for i, name in enumerate(("encoder", "decoder", "vae", "text_encoder", "unet")):
        save_network(folder, name, getattr(networks, name).init(jax.random.key(i)))
    return folder


def stage_1_of(pipeline: ElementsPipeline) -> ElementsPipeline:
    """Return the same model as before stage 2."""
    return ElementsPipeline(pipeline.config, {name: pipeline.params[name] for name in ("encoder", "decoder")}, None)
