"""Stable Diffusion's networks and files, small or without values."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from diffusers import AutoencoderKL as DiffusersAutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel

from elements_jax.checkpoints import torch_names
from tests.helpers.tokenizer import write_clip_tokenizer

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def small_unet(in_channels: int, **more: int) -> UNet2DConditionModel:
    """Return a small UNet like Stable Diffusion's; `more` holds other settings."""
    return UNet2DConditionModel(
        in_channels=in_channels,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
        **more,
    )


def stable_diffusion(in_channels: int = 4) -> dict[str, torch.nn.Module]:
    """Return small versions of Stable Diffusion's networks."""
    torch.manual_seed(0)
    return {
        "unet": small_unet(in_channels),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 8, 16),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
        ),
    }


def write_stable_diffusion(folder: Path, networks: dict[str, torch.nn.Module], **how) -> Path:
    for name, network in networks.items():
        network.save_pretrained(folder / name, **how)
    PNDMScheduler(**SCHEDULER, skip_prk_steps=True).save_pretrained(folder / "scheduler")
    write_clip_tokenizer(folder / "tokenizer")
    return folder


TABLES = {"unet": torch_names.UNET, "vae": torch_names.VAE, "text_encoder": torch_names.TEXT}


def theirs(network: str) -> torch.nn.Module:
    """Return Stable Diffusion 1.5's network from its configuration, without values."""
    with torch.device("meta"):
        if network == "unet":
            return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        if network == "vae":
            return DiffusersAutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            )
        return CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )


def official_name(network: str, name: str) -> str:
    """Return the published name of a parameter of `theirs`: transformers 5 leaves out the text encoder's prefix."""
    return f"text_model.{name}" if network == "text_encoder" else name


def assert_same_params(ours, expected):
    assert ours.keys() == expected.keys()
    for network, params in expected.items():
        assert ours[network].keys() == params.keys()
        for name, value in params.items():
            np.testing.assert_array_equal(ours[network][name], value, err_msg=name)
