"""The patch discriminator (PatchGAN; Isola et al. 2017) against which Latent Diffusion Models train their VAE."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from elements_jax.models.blocks import GroupNorm
from elements_jax.models.functional import normal


class PatchDiscriminator(nnx.Module):
    """Maps an image to one score per patch, high for a patch taken for real.

    The norms are over each channel of each image (instance normalisation, which equals pix2pix's batch norm at batch
    size one). LDM's norms are over the batch, so an image's score would depend on the other images and on their device.
    """

    def __init__(self, channels: int, levels: int, dtype: DTypeLike, *, rngs: nnx.Rngs):
        def conv(before: int, after: int, stride: int, bias: bool) -> nnx.Conv:
            return nnx.Conv(
                before,
                after,
                (4, 4),
                strides=stride,
                padding=1,
                use_bias=bias,
                kernel_init=normal(0.02),
                dtype=dtype,
                rngs=rngs,
            )

        widths = [channels * min(2**level, 8) for level in range(levels + 1)]
        self.conv_in = conv(3, channels, 2, bias=True)
        self.convs: nnx.List[nnx.Conv] = nnx.List([])
        self.norms: nnx.List[GroupNorm] = nnx.List([])
        for level in range(1, levels + 1):
            self.convs.append(conv(widths[level - 1], widths[level], 2 if level < levels else 1, bias=False))
            self.norms.append(GroupNorm(widths[level], widths[level], 1e-5, dtype))
        self.conv_out = conv(widths[-1], 1, 1, bias=True)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w"]:
        """Return the scores of images in [-1, 1]."""
        x = jax.nn.leaky_relu(self.conv_in(image), 0.2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.leaky_relu(norm(conv(x)), 0.2)
        return self.conv_out(x)[..., 0].astype(jnp.float32)


def hinge(real: Float[Array, "B h w"], made: Float[Array, "B h w"]) -> Float[Array, ""]:
    """Return the discriminator's loss: scores of real patches should be above 1, of generated patches below -1."""
    return 0.5 * (jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + made).mean())
