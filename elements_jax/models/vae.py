"""Stable Diffusion's KL autoencoder: image <-> latent. Frozen while the diffusion decoder trains (Section 3.3)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from elements_jax.config import VAEConfig
from elements_jax.models.blocks import Attention, Downsample, GroupNorm, Level, ResnetBlock, Upsample

EPSILON = 1e-6  # of the VAE's group norms


class PixelAttention(nnx.Module):
    """Self-attention of one head over the pixels of a feature map, with a shortcut."""

    def __init__(self, channels: int, groups: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.group_norm = GroupNorm(groups, channels, EPSILON, dtype)
        self.attention = Attention(channels, channels, heads=1, qkv_bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        batch, height, width, channels = x.shape
        pixels = self.group_norm(x).reshape(batch, height * width, channels)
        return x + self.attention(pixels, self.attention.keys_values(pixels)).reshape(x.shape)


class MiddleBlock(nnx.Module):
    """Residual block, attention (unless left out), residual block, at the lowest resolution."""

    def __init__(self, channels: int, groups: int, *, attention: bool = True, dtype: DTypeLike, rngs: nnx.Rngs):
        def resnet() -> ResnetBlock:
            return ResnetBlock(channels, channels, groups, epsilon=EPSILON, dtype=dtype, rngs=rngs)

        self.resnets = nnx.List([resnet(), resnet()])
        self.attentions = nnx.List([PixelAttention(channels, groups, dtype=dtype, rngs=rngs)] if attention else [])

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class Encoder(nnx.Module):
    """Maps an image to the moments of its latent, before `quant_conv`."""

    def __init__(self, config: VAEConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        widths, groups = config.block_out_channels, config.norm_groups
        self.conv_in = nnx.Conv(3, widths[0], (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.down_blocks: nnx.List[Level] = nnx.List([])
        channels = widths[0]
        for level, width in enumerate(widths):
            resnets = []
            for _ in range(config.layers_per_block):
                resnets.append(ResnetBlock(channels, width, groups, epsilon=EPSILON, dtype=dtype, rngs=rngs))
                channels = width
            last = level == len(widths) - 1
            down = None if last else Downsample(channels, ((0, 1), (0, 1)), dtype=dtype, rngs=rngs)
            self.down_blocks.append(Level(resnets, resample=down))
        self.mid_block = MiddleBlock(channels, groups, attention=config.middle_attention, dtype=dtype, rngs=rngs)
        self.conv_norm_out = GroupNorm(groups, channels, EPSILON, dtype)
        self.conv_out = nnx.Conv(channels, 2 * config.latent_channels, (3, 3), padding=1, dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w moments"]:
        x = self.conv_in(image)
        for level in self.down_blocks:
            for resnet in level.resnets:
                x = resnet(x)
            if level.resample is not None:
                x = level.resample(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Maps a latent, after `post_quant_conv`, to an image; one more residual block per level than the encoder."""

    def __init__(self, config: VAEConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        widths, groups = config.block_out_channels[::-1], config.norm_groups
        channels = widths[0]
        self.conv_in = nnx.Conv(config.latent_channels, channels, (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.mid_block = MiddleBlock(channels, groups, attention=config.middle_attention, dtype=dtype, rngs=rngs)
        self.up_blocks: nnx.List[Level] = nnx.List([])
        for level, width in enumerate(widths):
            resnets = []
            for _ in range(config.layers_per_block + 1):
                resnets.append(ResnetBlock(channels, width, groups, epsilon=EPSILON, dtype=dtype, rngs=rngs))
                channels = width
            up = None if level == len(widths) - 1 else Upsample(channels, dtype=dtype, rngs=rngs)
            self.up_blocks.append(Level(resnets, resample=up))
        self.conv_norm_out = GroupNorm(groups, channels, EPSILON, dtype)
        self.conv_out = nnx.Conv(channels, 3, (3, 3), padding=1, dtype=jnp.float32, rngs=rngs)

    def __call__(self, latent: Float[Array, "B h w Z"]) -> Float[Array, "B H W 3"]:
        return self.conv_out(self.features(latent))

    def features(self, latent: Float[Array, "B h w Z"]) -> Float[Array, "B H W C"]:
        """Return the input of the last convolution."""
        x = self.mid_block(self.conv_in(latent))
        for level in self.up_blocks:
            for resnet in level.resnets:
                x = resnet(x)
            if level.resample is not None:
                x = level.resample(x)
        return jax.nn.silu(self.conv_norm_out(x))


class AutoencoderKL(nnx.Module):
    """Stable Diffusion's autoencoder; each level except the last halves the image.

    `dtype` applies to the arithmetic; parameters, norms, softmax and outputs are float32.
    """

    def __init__(self, config: VAEConfig, dtype: DTypeLike, *, rngs: nnx.Rngs):
        channels = config.latent_channels
        self.encoder = Encoder(config, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(config, dtype=dtype, rngs=rngs)
        self.quant_conv = nnx.Conv(2 * channels, 2 * channels, (1, 1), dtype=jnp.float32, rngs=rngs)
        self.post_quant_conv = nnx.Conv(channels, channels, (1, 1), dtype=dtype, rngs=rngs)

    def encode(self, image: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B h w Z"], Float[Array, "B h w Z"]]:
        """Return mean and log variance of an image's latent, before scaling; the image is in [-1, 1]."""
        mean, logvar = jnp.split(self.quant_conv(self.encoder(image)), 2, axis=-1)
        return mean, jnp.clip(logvar, -30, 20)

    def decode(self, latent: Float[Array, "B h w Z"]) -> Float[Array, "B H W 3"]:
        """Decode a latent, divided by the scaling factor, to an image nominally in [-1, 1], not clipped."""
        return self.decoder(self.post_quant_conv(latent))
