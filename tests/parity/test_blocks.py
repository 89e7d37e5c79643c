"""Each kind of block against diffusers' or transformers', small and at widths of Stable Diffusion 1.5.

Tolerance: relative error 1e-5 in the 2-norm, in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention import FeedForward as DiffusersFeedForward
from diffusers.models.attention_processor import Attention as DiffusersAttention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D
from diffusers.models.upsampling import Upsample2D
from flax import nnx
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from elements_jax.checkpoints import torch_names
from elements_jax.config import TextConfig
from elements_jax.models.blocks import (
    Downsample,
    FeedForward,
    ResnetBlock,
    TimeEmbedding,
    Transformer2D,
    TransformerBlock,
    Upsample,
)
from elements_jax.models.functional import Functional
from elements_jax.models.text_encoder import EncoderLayer
from elements_jax.models.vae import EPSILON, MiddleBlock, PixelAttention
from tests.helpers.algorithm_1 import add_element_attention

TEXT, ELEMENTS = (2, 7, 24), (2, 9, 20)
FLOAT32 = jnp.float32


class Pair(NamedTuple):
    """A PyTorch block and ours; images are made NCHW and passed to ours as NHWC."""

    theirs: torch.nn.Module
    ours: Callable[[nnx.Rngs], nnx.Module]
    shapes: tuple[tuple[int, ...], ...]  # of the inputs
    table: torch_names.Table = torch_names.UNET
    place: str = "attentions.0."  # the place of ours in a network whose names the table knows,
    their_place: str = "attentions.0."  # and its name by the table
    scale: float = 1.0  # scale of the inputs: at 0.1 a norm's epsilon matters
    ask: Callable = lambda block, *inputs: block(*inputs)
    ask_ours: Callable = lambda block, *inputs: block(*inputs)


def resnet(channels: int, out_channels: int, groups: int, time: int | None) -> Pair:
    epsilon = EPSILON if time is None else 1e-5  # the VAE's blocks have no time input
    shapes = ((2, channels, 8, 6),) if time is None else ((2, channels, 8, 6), (2, time))
    return Pair(
        ResnetBlock2D(in_channels=channels, out_channels=out_channels, temb_channels=time, groups=groups, eps=epsilon),
        lambda rngs: ResnetBlock(
            channels, out_channels, groups, epsilon=epsilon, time_channels=time, dtype=FLOAT32, rngs=rngs
        ),
        shapes,
        scale=0.1,
        ask=lambda block, x, time=None: block(x, time),
    )


def downsample(channels: int, padding: tuple[tuple[int, int], ...]) -> Pair:
    return Pair(
        Downsample2D(channels, use_conv=True, padding=padding[0][0], name="op"),
        lambda rngs: Downsample(channels, padding, dtype=FLOAT32, rngs=rngs),
        ((2, channels, 10, 8),),
    )


def upsample(channels: int) -> Pair:
    return Pair(
        Upsample2D(channels, use_conv=True),
        lambda rngs: Upsample(channels, dtype=FLOAT32, rngs=rngs),
        ((2, channels, 5, 4),),
    )


def time_embedding(channels: int) -> Pair:
    waves = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)
    return Pair(
        TimestepEmbedding(channels, 4 * channels),
        lambda rngs: TimeEmbedding(channels, 4 * channels, dtype=FLOAT32, rngs=rngs),
        (),
        ask=lambda block: block(waves(torch.tensor([0, 1, 481, 999]))),
        ask_ours=lambda block: block(jnp.array([0, 1, 481, 999])),
    )


def feedforward(channels: int) -> Pair:
    return Pair(
        DiffusersFeedForward(channels, activation_fn="geglu"),
        lambda rngs: FeedForward(channels, dtype=FLOAT32, rngs=rngs),
        ((2, 12, channels),),
        place="attentions.0.feedforward.",
        their_place="attentions.0.ff.",
    )


def transformer(channels: int, heads: int, groups: int, with_elements: bool) -> Pair:
    """With elements, diffusers' block has Algorithm 1; without, ours gets no keys and values of elements."""
    theirs = Transformer2DModel(
        heads, channels // heads, channels, norm_num_groups=groups, cross_attention_dim=TEXT[-1]
    )
    elements = normal(*ELEMENTS)
    if with_elements:
        add_element_attention(theirs, ELEMENTS[-1], torch.from_numpy(elements))

    def build(rngs: nnx.Rngs) -> Transformer2D:
        block = TransformerBlock(
            channels, heads, TEXT[-1], ELEMENTS[-1], zero_init_elements=False, dtype=FLOAT32, rngs=rngs
        )
        return Transformer2D(channels, groups, block, dtype=FLOAT32, rngs=rngs)

    return Pair(
        theirs,
        build,
        ((2, channels, 6, 4), TEXT),
        scale=0.1,
        ask=lambda block, x, text: block(x, text, return_dict=False)[0],
        ask_ours=lambda block, x, text: block(
            x, block.block.context(text, jnp.asarray(elements) if with_elements else None)
        ),
    )


def transformer_block(channels: int, heads: int) -> Pair:
    """Alone, since in `Transformer2D` a group norm makes its inputs large, which hides the layer norms' epsilon."""
    return Pair(
        BasicTransformerBlock(channels, heads, channels // heads, cross_attention_dim=TEXT[-1]),
        lambda rngs: TransformerBlock(
            channels, heads, TEXT[-1], ELEMENTS[-1], zero_init_elements=False, dtype=FLOAT32, rngs=rngs
        ),
        ((2, 24, channels), TEXT),
        place="attentions.0.block.",
        their_place="attentions.0.transformer_blocks.0.",
        scale=0.01,
        ask=lambda block, x, text: block(x, encoder_hidden_states=text),
        ask_ours=lambda block, x, text: block(x, block.context(text, None)),
    )


def pixel_attention(channels: int, groups: int) -> Pair:
    return Pair(
        DiffusersAttention(
            channels,
            heads=1,
            dim_head=channels,
            eps=EPSILON,
            norm_num_groups=groups,
            residual_connection=True,
            bias=True,
        ),
        lambda rngs: PixelAttention(channels, groups, dtype=FLOAT32, rngs=rngs),
        ((2, channels, 8, 6),),
        torch_names.VAE,
        scale=0.1,
    )


def middle_block(channels: int, groups: int) -> Pair:
    return Pair(
        UNetMidBlock2D(channels, temb_channels=None, attention_head_dim=channels, resnet_groups=groups),
        lambda rngs: MiddleBlock(channels, groups, dtype=FLOAT32, rngs=rngs),
        ((2, channels, 8, 6),),
        torch_names.VAE,
        "mid_block.",
        "mid_block.",
        scale=0.1,
    )


def clip_layer(config: TextConfig) -> Pair:
    theirs = CLIPTextConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_attention_heads=config.heads,
        attn_implementation="eager",
    )
    later = torch.full((config.max_length, config.max_length), -torch.inf).triu(1)
    return Pair(
        CLIPEncoderLayer(theirs),
        lambda rngs: EncoderLayer(config, dtype=FLOAT32, rngs=rngs),
        ((2, config.max_length, config.hidden_size),),
        torch_names.TEXT,
        "layers.0.",
        "encoder.layers.0.",
        scale=0.1,
        ask=lambda block, x: block(x, later[None, None]),
    )


UNET_PADDING, VAE_PADDING = ((1, 1), (1, 1)), ((0, 1), (0, 1))
BLOCKS = {
    "ResNet block": lambda: resnet(16, 16, 4, time=20),
    "ResNet block, wider": lambda: resnet(16, 32, 8, time=20),
    "ResNet block, narrower, SD 1.5": lambda: resnet(960, 320, 32, time=1280),
    "ResNet block, widest, SD 1.5": lambda: resnet(1280, 1280, 32, time=1280),
    "ResNet block of the VAE": lambda: resnet(16, 32, 8, time=None),
    "ResNet block of the VAE, SD 1.5": lambda: resnet(256, 512, 32, time=None),
    "downsampling": lambda: downsample(8, UNET_PADDING),
    "downsampling, SD 1.5": lambda: downsample(320, UNET_PADDING),
    "downsampling of the VAE": lambda: downsample(8, VAE_PADDING),
    "downsampling of the VAE, SD 1.5": lambda: downsample(512, VAE_PADDING),
    "upsampling": lambda: upsample(8),
    "upsampling, SD 1.5": lambda: upsample(640),
    "time embedding": lambda: time_embedding(8),
    "time embedding, SD 1.5": lambda: time_embedding(320),
    "feed-forward": lambda: feedforward(16),
    "feed-forward, SD 1.5": lambda: feedforward(640),
    "transformer": lambda: transformer(16, 2, 4, with_elements=False),
    "transformer, SD 1.5": lambda: transformer(320, 8, 32, with_elements=False),
    "transformer with elements": lambda: transformer(16, 2, 4, with_elements=True),
    "transformer with elements, SD 1.5": lambda: transformer(320, 8, 32, with_elements=True),
    "transformer block": lambda: transformer_block(16, 2),
    "transformer block, SD 1.5": lambda: transformer_block(320, 8),
    "pixel attention": lambda: pixel_attention(16, 4),
    "pixel attention, SD 1.5": lambda: pixel_attention(512, 32),
    "middle block": lambda: middle_block(16, 4),
    "middle block, SD 1.5": lambda: middle_block(512, 32),
    "CLIP layer": lambda: clip_layer(TextConfig(max_length=6, hidden_size=16, intermediate_size=40, heads=2)),
    "CLIP layer, SD 1.5": lambda: clip_layer(TextConfig()),
}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_equals_pytorch(make, randomise, tensors_of, assert_same):
    pair = make()
    block, ours = randomise(pair.theirs), Functional(pair.ours)
    inputs = [pair.scale * normal(*shape) for shape in pair.shapes]
    with torch.no_grad():
        expected = pair.ask(block, *map(torch.from_numpy, inputs))
    assert expected.std() > 0.1

    tensors = {pair.their_place + name: value for name, value in tensors_of(block).items()}
    shapes = {pair.place + name: shape for name, shape in ours.shapes().items()}
    params = torch_names.from_torch(pair.table, tensors, shapes)
    params |= {name: jnp.full(shapes[name].shape, jnp.nan) for name in shapes.keys() - params.keys()}  # not read
    params = {name.removeprefix(pair.place): value for name, value in params.items()}
    inputs = [jnp.asarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x) for x in inputs]
    run = jax.jit(lambda params, inputs: pair.ask_ours(ours.module(params), *inputs))
    assert_same(run(params, inputs), expected)
