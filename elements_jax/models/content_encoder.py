"""The content encoder E: the appearance of one element as a short code (Section 3.2, Appendix C.1, Figure 13).

It is the convolutional encoder of Stable Diffusion's VAE with fewer residual blocks, ending in one vector per patch. It
sees only the resized patch, so that the code contains neither position nor size.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from elements_jax.config import ElementsConfig, EncoderConfig
from elements_jax.models.blocks import Downsample, GroupNorm, ResnetBlock
from elements_jax.models.vae import EPSILON, MiddleBlock


class ContentEncoder(nnx.Module):
    """Levels of one residual block and a stride-2 convolution, a middle with attention, one convolution to the code."""

    def __init__(self, config: EncoderConfig, elements: ElementsConfig, dtype: DTypeLike, *, rngs: nnx.Rngs):
        groups = config.norm_groups

        def resnet(in_channels: int, out_channels: int) -> ResnetBlock:
            return ResnetBlock(in_channels, out_channels, groups, epsilon=EPSILON, dtype=dtype, rngs=rngs)

        channels = config.base_channels
        self.conv_in = nnx.Conv(3, channels, (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.resnets: nnx.List = nnx.List()
        self.downsamplers: nnx.List = nnx.List()
        for multiplier in config.multipliers:
            self.resnets.append(resnet(channels, multiplier * config.base_channels))
            channels = multiplier * config.base_channels
            self.downsamplers.append(Downsample(channels, ((0, 1), (0, 1)), dtype=dtype, rngs=rngs))

        self.mid_block = MiddleBlock(channels, groups, dtype=dtype, rngs=rngs)
        self.norm_out = GroupNorm(groups, channels, EPSILON, dtype)
        rest = elements.patch_size // 2 ** len(config.multipliers)  # size of the last feature map: 2 in the paper
        self.conv_out = nnx.Conv(
            channels, elements.content_channels, (rest, rest), padding="VALID", dtype=jnp.float32, rngs=rngs
        )

    def __call__(self, pixels: Float[Array, "B N P P 3"]) -> Float[Array, "B N D"]:
        """Encode masked patches in [-1, 1] (`elements.extract_patches`) to float32 codes."""
        x = self.conv_in(pixels.reshape(-1, *pixels.shape[2:]))
        for resnet, downsample in zip(self.resnets, self.downsamplers, strict=True):
            x = downsample(resnet(x))
        x = jax.nn.silu(self.norm_out(self.mid_block(x))).astype(jnp.float32)
        return self.conv_out(x).reshape(*pixels.shape[:2], -1)
