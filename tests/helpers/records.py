"""A model of a few thousand parameters, and records for it."""

from pathlib import Path

import numpy as np

from elements_jax.config import (
    DecoderConfig,
    DiffusionConfig,
    ElementsConfig,
    EncoderConfig,
    ModelConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
)
from elements_jax.data.record import DROPPED, Record
from elements_jax.data.tfrecord import shard_path, write_tfrecord

SMALL = ModelConfig(
    elements=ElementsConfig(image_size=16, grid=2, patch_size=4, content_channels=8, frequencies=2),
    encoder=EncoderConfig(base_channels=8, multipliers=(1,), norm_groups=4),
    decoder=DecoderConfig(blocks=1, channels=16, self_heads=2, cross_heads=1, mlp_ratio=2, query_grid=4),
    vae=VAEConfig(block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_groups=4, scaling_factor=1.0),
    text=TextConfig(vocab_size=32, max_length=6, hidden_size=16, intermediate_size=32, layers=1, heads=2),
    unet=UNetConfig(block_out_channels=(16,), attention_levels=(True,), layers_per_block=1, heads=2, norm_groups=4),
    diffusion=DiffusionConfig(sample_steps=2),
)


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}


def record(seed: int, image_size: int = 16) -> Record:
    """Make a record of a square on a grey slope, under its own partition into four elements."""
    rng = np.random.default_rng(seed)
    name = list(COLOURS)[rng.integers(3)]
    image = np.repeat(np.linspace(60, 180, image_size)[:, None, None], image_size, axis=1).repeat(3, axis=2)
    mask = np.zeros((image_size, image_size), bool)
    top, left = rng.integers(2, image_size - 8, 2)
    mask[top : top + 6, left : left + 6] = True
    image[mask] = COLOURS[name]
    row, column = rng.integers(5, 11, 2)
    label_map = 2 * (np.arange(image_size) >= row)[:, None] + (np.arange(image_size) >= column)[None, :]
    label_map = np.where(rng.random(label_map.shape) < 0.01, DROPPED, label_map).astype(np.uint16)
    return Record(image.astype(np.uint8), label_map, f"a {name} square", mask[None], str(seed), {"num_elements": 4})


def write_records(folder: Path, first: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for split, seeds in (("train", range(first, first + 24)), ("val", range(100, 108))):
        write_tfrecord(shard_path(folder, split, 0, 1), (record(seed).to_example("png") for seed in seeds))
    return folder
