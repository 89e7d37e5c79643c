"""FlaxUNet: Stable Diffusion's UNet with cross-attention to image elements in every transformer block (Section 3.3).

One class serves every size; the default configuration has exactly the parameters of SD 1.5 plus the new ones.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from elements_jax.config import Remat, UNetConfig
from elements_jax.elements import embed_position
from elements_jax.models.blocks import (
    BlockContext,
    Downsample,
    GroupNorm,
    Level,
    ResnetBlock,
    TimeEmbedding,
    Transformer2D,
    TransformerBlock,
    Upsample,
)

# The projected conditions: keys and values of each transformer block, in the order of use.
Context = tuple[BlockContext, ...]


def _is_product(primitive: Any, *operands: Any, **parameters: Any) -> bool:
    name = primitive.name
    # The last ones are cuDNN's attention, for which JAX has several primitives.
    return name in ("conv_general_dilated", "dot_general", "pallas_call") or name.startswith("dot_product_attention")


_POLICIES: dict[Remat, Callable[[Callable], Callable]] = {
    "none": lambda block: block,
    "elementwise": partial(jax.checkpoint, policy=_is_product),
    "blocks": jax.checkpoint,
}


class FlaxUNet(nnx.Module):
    """Predicts the noise in a latent image, given text and image elements.

        context = unet.context(text, elements)        # once per image: independent of the timestep
        noise = unet(latent, timestep, context)       # once per step

    Args:
        text_channels: width of the text encoder's output.
        element_channels: width E of an element token (`ElementsConfig.token_channels`).
        dtype: type of the arithmetic; parameters, norms, softmax and the last convolution are float32.
    """

    def __init__(
        self,
        config: UNetConfig,
        latent_channels: int,
        text_channels: int,
        element_channels: int,
        dtype: DTypeLike,
        *,
        rngs: nnx.Rngs,
    ):
        widths, groups = config.block_out_channels, config.norm_groups
        time_channels = 4 * widths[0]

        def resnet(in_channels: int, out_channels: int) -> ResnetBlock:
            return ResnetBlock(
                in_channels, out_channels, groups, epsilon=1e-5, time_channels=time_channels, dtype=dtype, rngs=rngs
            )

        def transformer(channels: int) -> Transformer2D:
            block = TransformerBlock(
                channels,
                config.heads,
                text_channels,
                element_channels,
                zero_init_elements=config.zero_init_elements,
                dtype=dtype,
                rngs=rngs,
            )
            return Transformer2D(channels, groups, block, dtype=dtype, rngs=rngs)

        def transformers(level: int, count: int) -> list[Transformer2D]:
            return [transformer(widths[level]) for _ in range(count)] if config.attention_levels[level] else []

        self.position_frequencies = config.position_frequencies
        in_channels = latent_channels + config.beside_latent + 2 * 2 * config.position_frequencies
        self.conv_in = nnx.Conv(in_channels, widths[0], (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.time_embedding = TimeEmbedding(widths[0], time_channels, dtype=dtype, rngs=rngs)

        # Every feature map of the down path is kept for the up path; `skips` are their channels.
        channels, skips, last = widths[0], [widths[0]], len(widths) - 1
        self.down_blocks: nnx.List[Level] = nnx.List([])
        for level, width in enumerate(widths):
            resnets = []
            for _ in range(config.layers_per_block):
                resnets.append(resnet(channels, width))
                channels = width
                skips.append(channels)
            down = None
            if level < last:
                down = Downsample(channels, ((1, 1), (1, 1)), dtype=dtype, rngs=rngs)
                skips.append(channels)
            self.down_blocks.append(Level(resnets, transformers(level, len(resnets)), down))

        middle = [resnet(channels, channels) for _ in range(2)]
        self.mid_block = Level(middle, [transformer(channels)])

        self.up_blocks: nnx.List[Level] = nnx.List([])
        for level, width in reversed(list(enumerate(widths))):
            resnets = []
            for _ in range(config.layers_per_block + 1):
                resnets.append(resnet(channels + skips.pop(), width))
                channels = width
            up = Upsample(channels, dtype=dtype, rngs=rngs) if level > 0 else None
            self.up_blocks.append(Level(resnets, transformers(level, len(resnets)), up))

        self.conv_norm_out = GroupNorm(groups, channels, 1e-5, dtype)
        self.conv_out = nnx.Conv(channels, latent_channels, (3, 3), padding=1, dtype=jnp.float32, rngs=rngs)

    def context(self, text: Float[Array, "B L Ct"] | None, elements: Float[Array, "B N E"] | None) -> Context:
        """Project the conditions to keys and values.

        None omits the attention of a condition (Algorithm 1). This differs from the empty prompt and zero tokens, which
        replace dropped conditions in training and guidance.
        """
        levels = [*self.down_blocks, self.mid_block, *self.up_blocks]
        return tuple(attention.block.context(text, elements) for level in levels for attention in level.attentions)

    def __call__(
        self, latent: Float[Array, "B h w Zin"], timestep: Int[Array, " B"], context: Context, *, remat: Remat = "none"
    ) -> Float[Array, "B h w Z"]:
        """Predict the noise in `latent` (scaled by `VAEConfig.scaling_factor`) at `timestep`, in float32.

        The configuration's `beside_latent` channels follow the latent's own; by default there are none.

        Raises ValueError if the latent image cannot be halved between all levels.
        """
        stride = 2 ** (len(self.down_blocks) - 1)
        if latent.shape[1] % stride or latent.shape[2] % stride:
            raise ValueError(f"height and width of a latent must be multiples of {stride}, got {latent.shape[1:3]}")
        time = self.time_embedding(timestep)
        contexts = iter(context)

        def layer(level: Level, index: int, x: jax.Array) -> jax.Array:
            def compute(x, time, context):
                x = level.resnets[index](x, time)
                return level.attentions[index](x, context) if level.attentions else x

            read = next(contexts) if level.attentions else None
            return _POLICIES[remat](compute)(x, time, read)

        x = self.conv_in(self._with_position(latent))
        skips = [x]
        for level in self.down_blocks:
            for index in range(len(level.resnets)):
                x = layer(level, index, x)
                skips.append(x)
            if level.resample is not None:
                x = level.resample(x)
                skips.append(x)

        x = layer(self.mid_block, 0, x)
        x = self.mid_block.resnets[1](x, time)

        for level in self.up_blocks:
            for index in range(len(level.resnets)):
                x = layer(level, index, jnp.concatenate([x, skips.pop()], axis=-1))
            if level.resample is not None:
                x = level.resample(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))

    def _with_position(self, latent: Float[Array, "B h w Zin"]) -> Float[Array, "B h w Z_and_position"]:
        """Concatenate the latent with the embedded coordinates of its pixels, as in the light decoder's queries."""
        y, x = jnp.meshgrid(*[(jnp.arange(side) + 0.5) / side for side in latent.shape[1:3]], indexing="ij")
        position = embed_position(jnp.stack([x, y], axis=-1), self.position_frequencies)
        return jnp.concatenate([latent, jnp.broadcast_to(position, (*latent.shape[:3], position.shape[-1]))], axis=-1)
