"""The model folder, from the side of training: each stage reads what earlier ones left and adds its own networks."""

import dataclasses
from pathlib import Path

from elements_jax.checkpoints.diffusers_config import differing_parts
from elements_jax.checkpoints.model_folder import (
    CONFIG,
    has_network,
    load_present,
    local_model,
    read_config,
    read_model,
    save_network,
    write_config,
)
from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.config import ModelConfig
from elements_jax.models.networks import Networks


def open_folder(folder: Path, wanted: ModelConfig) -> ModelConfig:
    """Make the folder with `wanted` as its configuration, or check that it holds the same model; returns the folder's.

    The two may differ in the VAE's scaling factor alone, which its stage measures. Raises ValueError naming the parts
    that differ.
    """
    path = folder / CONFIG
    if not path.exists():
        write_config(folder, wanted)
        return wanted
    config = ModelConfig.load(path)
    wanted = with_scaling_factor(wanted, config.vae.scaling_factor)
    parts = [field.name for field in dataclasses.fields(config)]
    if differ := [name for name in parts if getattr(config, name) != getattr(wanted, name)]:
        raise ValueError(f"{path} is of another model: it differs from the preset and its overrides in {differ}")
    return config


def start_from(source: str, folder: Path, wanted: ModelConfig) -> None:
    """Make the folder from the networks and the tokenizer of another model; what the folder has already is left alone.

    Args:
        source: what `ElementsPipeline.from_pretrained` takes: a Stable Diffusion, say; or a model folder that is not
            complete, of stage 1 for example, which gives what it has.

    Raises ValueError naming the parts in which the other model is not like `wanted`, those of the elements only where
    the other model has networks of them.
    """
    names = ("encoder", "decoder", "vae", "text_encoder", "unet")
    if all(has_network(folder, name) for name in names):
        return
    path, tokenizer = local_model(source), None
    if (path / CONFIG).is_file():
        config = read_config(path)
        params = load_present(path, Networks(config), *names)
        if "text_encoder" in params:
            tokenizer = PromptTokenizer(path / "tokenizer", config.text)
    else:
        config, params, tokenizer = read_model(source)
    wanted = with_scaling_factor(wanted, config.vae.scaling_factor)
    differ = differing_parts(wanted, config)
    if "encoder" in params:
        differ += [
            part for part in ("elements", "encoder", "decoder") if getattr(wanted, part) != getattr(config, part)
        ]
    if differ:
        raise ValueError(f"{source} is of another model: it differs from the preset and its overrides in {differ}")
    open_folder(folder, wanted)
    if tokenizer is not None and not has_network(folder, "text_encoder"):
        tokenizer.save(folder / "tokenizer")
    for name, network in params.items():
        if not has_network(folder, name):
            save_network(folder, name, network)


def with_scaling_factor(config: ModelConfig, scaling_factor: float) -> ModelConfig:
    """The configuration with another factor between the VAE's latents and those that are diffused."""
    return dataclasses.replace(config, vae=dataclasses.replace(config.vae, scaling_factor=scaling_factor))
