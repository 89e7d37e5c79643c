"""The lightweight transformer decoder of stage 1: image elements -> image (Section 3.2, Appendix C.1, Figure 13).

It serves to train the content encoder; the diffusion decoder generates images (`unet.py`).
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from elements_jax.config import DecoderConfig, ElementsConfig
from elements_jax.elements import ImageElements, element_tokens, embed_position
from elements_jax.models.blocks import Attention


class SelfAttentionLayer(nnx.Module):
    """A pre-norm transformer layer as in MAE: self-attention, then an MLP."""

    def __init__(self, config: DecoderConfig, dtype: DTypeLike, *, rngs: nnx.Rngs):
        channels = config.channels
        self.norm_attention = nnx.LayerNorm(channels, rngs=rngs)
        self.attention = Attention(channels, channels, config.self_heads, dtype=dtype, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(channels, rngs=rngs)
        self.expand = nnx.Linear(channels, config.mlp_ratio * channels, dtype=dtype, rngs=rngs)
        self.contract = nnx.Linear(config.mlp_ratio * channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B Q C"]) -> Float[Array, "B Q C"]:
        normed = self.norm_attention(x)
        x = x + self.attention(normed, self.attention.keys_values(normed))
        return x + self.contract(nnx.gelu(self.expand(self.norm_mlp(x)), approximate=False))


class DecoderBlock(nnx.Module):
    """One cross-attention to the elements, then two self-attention layers.

    Keys depend on content and position, values only on content: geometry only routes.
    """

    def __init__(self, config: DecoderConfig, elements: ElementsConfig, dtype: DTypeLike, *, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(config.channels, rngs=rngs)
        self.cross_attention = Attention(
            config.channels,
            elements.token_channels,
            config.cross_heads,
            value_channels=elements.content_channels,
            dtype=dtype,
            rngs=rngs,
        )
        self.self_attention = nnx.List([SelfAttentionLayer(config, dtype, rngs=rngs) for _ in range(2)])

    def __call__(
        self, x: Float[Array, "B Q C"], keys: Float[Array, "B N E"], values: Float[Array, "B N D"]
    ) -> Float[Array, "B Q C"]:
        x = x + self.cross_attention(self.norm(x), self.cross_attention.keys_values(keys, values))
        for layer in self.self_attention:
            x = layer(x)
        return x


class TransformerDecoder(nnx.Module):
    """Paints each cell of a grid by attending to the image elements."""

    def __init__(self, config: DecoderConfig, elements: ElementsConfig, dtype: DTypeLike, *, rngs: nnx.Rngs):
        self.query_grid, self.frequencies = config.query_grid, elements.frequencies
        self.content_channels = elements.content_channels
        self.cell = elements.image_size // config.query_grid  # pixels per side painted by one query
        self.embed_query = nnx.Linear(2 * 2 * elements.frequencies, config.channels, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([DecoderBlock(config, elements, dtype, rngs=rngs) for _ in range(config.blocks)])
        self.norm_out = nnx.LayerNorm(config.channels, rngs=rngs)
        self.to_pixels = nnx.Linear(config.channels, self.cell**2 * 3, rngs=rngs)  # float32: it outputs the image

    def __call__(self, elements: ImageElements) -> Float[Array, "B H W 3"]:
        """Reconstruct the image, in [-1, 1] but not clipped."""
        keys = element_tokens(elements, self.frequencies)
        values = keys[..., : self.content_channels]

        g, c = self.query_grid, self.cell
        y, x = jnp.meshgrid(*[(jnp.arange(g) + 0.5) / g] * 2, indexing="ij")
        queries = embed_position(jnp.stack([x, y], axis=-1).reshape(g * g, 2), self.frequencies)
        hidden = jnp.broadcast_to(self.embed_query(queries), (keys.shape[0], g * g, self.embed_query.out_features))
        for block in self.blocks:
            hidden = block(hidden, keys, values)
        pixels = self.to_pixels(self.norm_out(hidden).astype(jnp.float32))
        return pixels.reshape(-1, g, g, c, c, 3).swapaxes(2, 3).reshape(-1, g * c, g * c, 3)
