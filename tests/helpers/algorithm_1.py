"""diffusers' UNet with Algorithm 1 added: the reference for FlaxUNet."""

import types
from collections.abc import Mapping

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention

from elements_jax.config import UNetConfig


def diffusers_unet(config: UNetConfig, text_channels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        down_block_types=["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in config.attention_levels],
        up_block_types=["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in config.attention_levels[::-1]],
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        attention_head_dim=config.heads,
        norm_num_groups=config.norm_groups,
        cross_attention_dim=text_channels,
    )


def add_element_attention(unet: torch.nn.Module, channels: int, elements: torch.Tensor | None) -> torch.nn.ModuleList:
    """Put Algorithm 1 into each transformer block of diffusers' network, with `elements` as the image's context.

    Returns the new layers, which attend to elements with this number of `channels`.
    """

    def algorithm_1(self, hidden_states, encoder_hidden_states=None, **_):
        x = hidden_states + self.attn1(self.norm1(hidden_states))
        y = torch.zeros_like(x)
        if encoder_hidden_states is not None:
            y = y + self.attn2(self.norm2(x), encoder_hidden_states=encoder_hidden_states)
        if elements is not None:
            y = y + self.element_attention(self.norm_elements(x), encoder_hidden_states=elements)
        x = x + y
        return self.ff(self.norm3(x)) + x

    new = torch.nn.ModuleList()
    for block in [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]:
        width, heads = block.attn1.to_q.in_features, block.attn1.heads
        block.norm_elements = torch.nn.LayerNorm(width)
        block.element_attention = Attention(width, cross_attention_dim=channels, heads=heads, dim_head=width // heads)
        block.forward = types.MethodType(algorithm_1, block)
        new += [block.norm_elements, block.element_attention]
    return new


def torch_predict(unet: UNet2DConditionModel, inputs: Mapping[str, np.ndarray], text: bool = True) -> torch.Tensor:
    with torch.no_grad():
        return unet(
            torch.from_numpy(inputs["latent"].transpose(0, 3, 1, 2)),
            torch.from_numpy(inputs["timestep"]),
            torch.from_numpy(inputs["text"]) if text else None,
        ).sample
