"""The model folder, from the side of training: each stage reads what earlier ones left and adds its own networks."""

import dataclasses
from pathlib import Path

from elements_jax.config import ModelConfig


def open_folder(folder: Path, wanted: ModelConfig) -> ModelConfig:
    """Make the folder with `wanted` as its configuration, or check that it holds the same model; returns the folder's.

    The two may differ in the VAE's scaling factor alone, which its stage measures. Raises ValueError naming the parts
    that differ.
    """
    path = folder / "config.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        wanted.save(path)
        return wanted
    config = ModelConfig.load(path)
    wanted = with_scaling_factor(wanted, config.vae.scaling_factor)
    parts = [field.name for field in dataclasses.fields(config)]
    if differ := [name for name in parts if getattr(config, name) != getattr(wanted, name)]:
        raise ValueError(f"{path} is of another model: it differs from the preset and its overrides in {differ}")
    return config


def with_scaling_factor(config: ModelConfig, scaling_factor: float) -> ModelConfig:
    """The configuration with another factor between the VAE's latents and those that are diffused."""
    return dataclasses.replace(config, vae=dataclasses.replace(config.vae, scaling_factor=scaling_factor))
