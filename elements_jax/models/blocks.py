"""Building blocks of Stable Diffusion's networks, and the paper's change to them: Algorithm 1, `TransformerBlock`.

Images are NHWC. Parameters are float32; `dtype` applies to the arithmetic, except norms and softmax, which are float32.
Attribute names follow diffusers' if they are clear; `checkpoints/torch_names.py` maps the others.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from elements_jax.models.attention import attention
from elements_jax.models.functional import normal


class KeysValues(NamedTuple):
    """Keys and values of one attention layer's context, split into heads."""

    keys: Float[Array, "B K heads C"]
    values: Float[Array, "B K heads C"]


class BlockContext(NamedTuple):
    """Keys and values of one transformer block's cross-attentions; None for a missing condition."""

    text: KeysValues | None
    elements: KeysValues | None


class GroupNorm(nnx.Module):
    """Group normalisation over height, width and the channels of a group, in float32.

    The image is reduced to moments of channels, and these to moments of groups. It is thus read only twice, as rows of
    contiguous channels: for two sums, and for one multiply-add.
    """

    def __init__(self, groups: int, channels: int, epsilon: float, dtype: DTypeLike):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.groups, self.epsilon, self.dtype = groups, epsilon, dtype

    def __call__(self, x_BxHxWxC: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        x = x_BxHxWxC.astype(jnp.float32)
        channels = x.shape[-1]

        def group_mean(x_BxHxWxC):
            mean_BxC = x_BxHxWxC.mean((1, 2))
            mean_BxG = mean_BxC.reshape(-1, self.groups, channels // self.groups).mean(-1)
            return jnp.repeat(mean_BxG, channels // self.groups, axis=-1)[:, None, None, :]

        mean = group_mean(x)
        variance = jnp.maximum(group_mean(x * x) - mean * mean, 0)
        scale = lax.rsqrt(variance + self.epsilon) * self.scale[...]
        return (x * scale + (self.bias[...] - mean * scale)).astype(self.dtype)


class Conv3x3(nnx.Module):
    """A 3 x 3 convolution that keeps the image's size.

    On 2 x 2 pixels or one pixel, every output sees every input. Written as a dense layer it is a plain matrix product,
    a hundred times faster on a CPU. The middle of the content encoder is that small.
    """

    def __init__(self, in_channels: int, out_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (3, 3, in_channels, out_channels)))
        self.bias = nnx.Param(jnp.zeros(out_channels))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B H W C1"]) -> Float[Array, "B H W C2"]:
        x, kernel, bias = (value.astype(self.dtype) for value in (x, self.kernel[...], self.bias[...]))
        if (side := x.shape[1]) > 2 or x.shape[2] != side:
            return (
                lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
            )
        in_channels, out_channels = kernel.shape[2:]
        tap = jnp.arange(side)[:, None] - jnp.arange(side) + 1  # [from, to]: the kernel's row or column between pixels
        dense = kernel[tap[:, None, :, None], tap[None, :, None, :]]  # (y, x, to y, to x, in, out)
        dense = dense.transpose(0, 1, 4, 2, 3, 5).reshape(side**2 * in_channels, side**2 * out_channels)
        return (x.reshape(-1, side**2 * in_channels) @ dense).reshape(-1, side, side, out_channels) + bias


class ResnetBlock(nnx.Module):
    """Two convolutions with a shortcut; in the UNet the timestep's embedding is added between them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        *,
        epsilon: float,
        time_channels: int | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.norm1 = GroupNorm(groups, in_channels, epsilon, dtype)
        self.conv1 = Conv3x3(in_channels, out_channels, dtype=dtype, rngs=rngs)
        if time_channels is not None:
            self.time_emb_proj = nnx.Linear(time_channels, out_channels, dtype=dtype, rngs=rngs)
        self.norm2 = GroupNorm(groups, out_channels, epsilon, dtype)
        self.conv2 = Conv3x3(out_channels, out_channels, dtype=dtype, rngs=rngs)
        self.conv_shortcut = (
            nnx.Conv(in_channels, out_channels, (1, 1), dtype=dtype, rngs=rngs) if in_channels != out_channels else None
        )

    def __call__(
        self, x: Float[Array, "B H W C1"], time_BxT: Float[Array, "B T"] | None = None
    ) -> Float[Array, "B H W C2"]:
        residual = x if self.conv_shortcut is None else self.conv_shortcut(x)
        x = self.conv1(jax.nn.silu(self.norm1(x)))
        if time_BxT is not None:
            x = x + self.time_emb_proj(jax.nn.silu(time_BxT))[:, None, None, :]
        return residual + self.conv2(jax.nn.silu(self.norm2(x)))


class Downsample(nnx.Module):
    """Halve the image by a strided convolution; the UNet pads by ((1, 1), (1, 1)), the VAE by ((0, 1), (0, 1))."""

    def __init__(self, channels: int, padding: tuple[tuple[int, int], ...], *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = nnx.Conv(channels, channels, (3, 3), strides=2, padding=padding, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Double the image by repeating pixels, then a convolution."""

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = nnx.Conv(channels, channels, (3, 3), padding=1, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
        batch, height, width, channels = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
        return self.conv(x.reshape(batch, 2 * height, 2 * width, channels))


class Attention(nnx.Module):
    """Multi-head attention, with separately projected keys and values, so that a fixed context is projected only once.

    Without `qkv_bias` a zero token has logit 0 and value 0. Values come from the same context as the keys unless
    `value_channels` says otherwise.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        heads: int,
        *,
        value_channels: int | None = None,
        qkv_bias: bool = False,
        zero_init: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.heads = heads
        value_channels = context_channels if value_channels is None else value_channels
        self.to_q = nnx.Linear(channels, channels, use_bias=qkv_bias, dtype=dtype, rngs=rngs)
        self.to_k = nnx.Linear(context_channels, channels, use_bias=qkv_bias, dtype=dtype, rngs=rngs)
        self.to_v = nnx.Linear(value_channels, channels, use_bias=qkv_bias, dtype=dtype, rngs=rngs)
        kernel_init = normal(0.0) if zero_init else nnx.initializers.lecun_normal()
        self.to_out = nnx.Linear(channels, channels, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

    def keys_values(self, context: Float[Array, "B K C"], values: Float[Array, "B K Cv"] | None = None) -> KeysValues:
        """Project a context: text, element tokens, or for self-attention the features themselves."""
        return KeysValues(
            self._split(self.to_k(context)), self._split(self.to_v(context if values is None else values))
        )

    def __call__(self, x: Float[Array, "B Q C"], context: KeysValues) -> Float[Array, "B Q C"]:
        return self.to_out(attention(self._split(self.to_q(x)), context.keys, context.values).reshape(x.shape))

    def _split(self, x: Float[Array, "B K C"]) -> Float[Array, "B K {self.heads} C/{self.heads}"]:
        return x.reshape(*x.shape[:2], self.heads, -1)


class FeedForward(nnx.Module):
    """Gated feed-forward layer (GEGLU) with the exact GELU: PyTorch's default, but not Flax's."""

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.proj_in = nnx.Linear(channels, 8 * channels, dtype=dtype, rngs=rngs)
        self.proj_out = nnx.Linear(4 * channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B Q C"]) -> Float[Array, "B Q C"]:
        value, gate = jnp.split(self.proj_in(x), 2, axis=-1)
        return self.proj_out(value * jax.nn.gelu(gate, approximate=False))


class TransformerBlock(nnx.Module):
    """Fused attention block (Algorithm 1): text and image elements are attended to side by side, with equal weights."""

    def __init__(
        self,
        channels: int,
        heads: int,
        text_channels: int,
        element_channels: int,
        *,
        zero_init_elements: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        def layer_norm():
            return nnx.LayerNorm(channels, epsilon=1e-5, dtype=dtype, rngs=rngs)

        self.norm_self = layer_norm()
        self.self_attention = Attention(channels, channels, heads, dtype=dtype, rngs=rngs)
        self.norm_text = layer_norm()
        self.text_attention = Attention(channels, text_channels, heads, dtype=dtype, rngs=rngs)
        self.norm_elements = layer_norm()
        self.element_attention = Attention(
            channels, element_channels, heads, zero_init=zero_init_elements, dtype=dtype, rngs=rngs
        )
        self.norm_feedforward = layer_norm()
        self.feedforward = FeedForward(channels, dtype=dtype, rngs=rngs)

    def context(self, text: Float[Array, "B L Ct"] | None, elements: Float[Array, "B N E"] | None) -> BlockContext:
        """Project the conditions. A zero element token has zero keys and values, and stays in the softmax."""
        return BlockContext(
            None if text is None else self.text_attention.keys_values(text),
            None if elements is None else self.element_attention.keys_values(elements),
        )

    def __call__(self, x: Float[Array, "B Q C"], context: BlockContext) -> Float[Array, "B Q C"]:
        normed = self.norm_self(x)
        x = x + self.self_attention(normed, self.self_attention.keys_values(normed))
        fused = x
        if context.text is not None:
            fused = fused + self.text_attention(self.norm_text(x), context.text)
        if context.elements is not None:
            fused = fused + self.element_attention(self.norm_elements(x), context.elements)
        return fused + self.feedforward(self.norm_feedforward(fused))


class Transformer2D(nnx.Module):
    """A transformer block over the pixels of a feature map, with a shortcut."""

    def __init__(
        self,
        channels: int,
        groups: int,
        block: TransformerBlock,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.norm = GroupNorm(groups, channels, 1e-6, dtype)
        self.proj_in = nnx.Conv(channels, channels, (1, 1), dtype=dtype, rngs=rngs)
        self.block = block
        self.proj_out = nnx.Conv(channels, channels, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"], context: BlockContext) -> Float[Array, "B h w C"]:
        batch, height, width, channels = x.shape
        hidden = self.proj_in(self.norm(x)).reshape(batch, height * width, channels)
        hidden = self.block(hidden, context).reshape(x.shape)
        return x + self.proj_out(hidden)


class Level(nnx.Module):
    """One resolution of a network: ResNet blocks, each optionally followed by attention, then a resampling."""

    def __init__(
        self,
        resnets: Sequence[ResnetBlock],
        attentions: Sequence[Any] = (),  # Transformer2D in the UNet, PixelAttention in the VAE
        resample: Downsample | Upsample | None = None,
    ):
        self.resnets = nnx.List(resnets)
        self.attentions = nnx.List(attentions)
        self.resample = resample


class TimeEmbedding(nnx.Module):
    """Cosines and sines of the timestep at geometric frequencies from 1 down to 1/10000, through an MLP."""

    def __init__(self, channels: int, time_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.channels = channels
        self.linear_1 = nnx.Linear(channels, time_channels, dtype=dtype, rngs=rngs)
        self.linear_2 = nnx.Linear(time_channels, time_channels, dtype=dtype, rngs=rngs)

    def __call__(self, timestep: Int[Array, " B"]) -> Float[Array, "B T"]:
        half = self.channels // 2
        frequencies = jnp.exp(-math.log(10000) * jnp.arange(half) / half)
        angles = timestep[:, None] * frequencies
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        return self.linear_2(jax.nn.silu(self.linear_1(waves)))
