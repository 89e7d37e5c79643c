"""Every norm's epsilon is that of diffusers' or transformers' norm of the same name.

Outputs hardly distinguish 1e-5 from 1e-6 unless a norm's input is small, so this compares the epsilons directly.
"""

import jax.numpy as jnp
import pytest
import torch
from diffusers import AutoencoderKL as DiffusersAutoencoderKL
from flax import nnx
from transformers import CLIPTextConfig, CLIPTextModel

from elements_jax.checkpoints import torch_names
from elements_jax.config import TextConfig, UNetConfig, VAEConfig
from elements_jax.models.text_encoder import CLIPTextEncoder
from elements_jax.models.unet import FlaxUNet
from elements_jax.models.vae import AutoencoderKL
from tests.helpers.algorithm_1 import diffusers_unet

UNET = UNetConfig(
    block_out_channels=(32, 64), attention_levels=(True, True), layers_per_block=1, heads=4, norm_groups=16
)
VAE = VAEConfig(block_out_channels=(16, 32), layers_per_block=1, norm_groups=8)
TEXT = TextConfig(vocab_size=99, max_length=12, hidden_size=32, intermediate_size=80, layers=2, heads=4)


def unet() -> tuple[torch_names.Table, nnx.Module, torch.nn.Module]:
    return torch_names.UNET, FlaxUNet(UNET, 4, 24, 20, jnp.float32, rngs=nnx.Rngs(0)), diffusers_unet(UNET, 24)


def vae() -> tuple[torch_names.Table, nnx.Module, torch.nn.Module]:
    theirs = DiffusersAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=VAE.block_out_channels,
        layers_per_block=VAE.layers_per_block,
        norm_num_groups=VAE.norm_groups,
    )
    return torch_names.VAE, AutoencoderKL(VAE, jnp.float32, rngs=nnx.Rngs(0)), theirs


def text() -> tuple[torch_names.Table, nnx.Module, torch.nn.Module]:
    config = CLIPTextConfig(
        vocab_size=TEXT.vocab_size,
        max_position_embeddings=TEXT.max_length,
        hidden_size=TEXT.hidden_size,
        intermediate_size=TEXT.intermediate_size,
        num_hidden_layers=TEXT.layers,
        num_attention_heads=TEXT.heads,
    )
    return torch_names.TEXT, CLIPTextEncoder(TEXT, jnp.float32, rngs=nnx.Rngs(0)), CLIPTextModel(config)


@pytest.mark.parametrize("networks", [unet, vae, text])
def test_every_norm_has_the_epsilon_of_its_original(networks):
    table, ours, theirs = networks()
    found = {
        torch_names.torch_name(table, ".".join([*map(str, path), "scale"])).removesuffix(".weight"): node.epsilon
        for path, node in nnx.iter_graph(ours)
        if isinstance(node, nnx.Module) and hasattr(node, "epsilon")
    }
    expected = {
        ("text_model." if networks is text else "") + name: module.eps  # transformers 5 has no such prefix
        for name, module in theirs.named_modules()
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm)
    }
    of_elements = {name: found.pop(name) for name in list(found) if name.endswith("norm_elements")}
    assert len(expected) >= 5
    assert found == expected
    assert set(of_elements.values()) <= {1e-5}  # like the block's other norms
    assert bool(of_elements) == (networks is unet)
