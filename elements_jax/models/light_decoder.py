"""The lightweight transformer decoder of stage 1: image elements -> image (Section 3.2, Appendix C.1, Figure 13).

It serves to train the content encoder; the diffusion decoder generates images (`unet.py`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from elements_jax.config import DecoderConfig, ElementsConfig
from elements_jax.elements import ImageElements, element_tokens, embed_position
from elements_jax.models.blocks import Attention
from elements_jax.models.functional import Params


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


class NearestElements(nnx.Module):
    """Shows each query the elements nearest to it, and where in each of them it lies.

    The paper has nothing of the kind: its values carry no position, so its decoder must infer from several elements
    which part of one a query paints. With few elements per query, that is most of what a small decoder has to learn.

    A code and the query's place are multiplied, as coefficients and a basis of images are: each hidden unit is the
    product of a projection of the code, a function of x and a function of y.
    """

    OCTAVES = 4  # the finest has a period of a quarter of an element's size and the pitch of the grid together

    def __init__(self, config: DecoderConfig, elements: ElementsConfig, dtype: DTypeLike, *, rngs: nnx.Rngs):
        self.count, self.pitch, self.heads = config.nearest, 1 / elements.grid, config.cross_heads
        hidden, axis = 2 * config.channels, 2 * self.OCTAVES
        self.embed_content = nnx.Linear(elements.content_channels, hidden, dtype=dtype, rngs=rngs)
        self.embed_x = nnx.Linear(axis, hidden, dtype=dtype, rngs=rngs)
        self.embed_y = nnx.Linear(axis, hidden, dtype=dtype, rngs=rngs)
        self.to_score = nnx.Linear(hidden, self.heads, dtype=dtype, rngs=rngs)
        self.to_value = nnx.Linear(hidden, config.channels, dtype=dtype, rngs=rngs)

    def __call__(self, points: Float[Array, "Q 2"], elements: ImageElements) -> Float[Array, "B Q C"]:
        """Return what each query, at a point (x, y) in [0, 1], sees of the `count` elements nearest to it.

        Distances are in units of each element's size, so that a large element is near to all that it covers. Beyond
        half a unit, which is outside of the element, its weight falls, to zero at a whole unit: in a hole, the place in
        elements far away says nothing.
        """
        centre, size = jnp.split(elements.position[:, None], 2, axis=-1)
        offset = (points[:, None] - centre) / (size + self.pitch)
        distance = jnp.where(elements.valid[:, None], (offset**2).sum(-1), jnp.inf)
        distance, nearest = jax.lax.top_k(-distance, self.count)  # (B, Q, K), negated
        fade = jnp.clip((1 + distance) / 0.75, 0, 1)[..., None]

        x, y = jnp.moveaxis(jnp.take_along_axis(offset, nearest[..., None], axis=2), -1, 0)[..., None]
        content = jnp.where(elements.valid[..., None], self.embed_content(elements.content), 0)
        content = jax.vmap(lambda of_image, chosen: of_image[chosen])(content, nearest)
        hidden = content * self.embed_x(embed_position(x, self.OCTAVES)) * self.embed_y(embed_position(y, self.OCTAVES))
        weights = jax.nn.softmax(self.to_score(hidden).astype(jnp.float32), axis=2) * fade
        values = self.to_value(hidden)
        seen = jnp.einsum("bqkh,bqkhd->bqhd", weights.astype(hidden.dtype), values.reshape(*weights.shape, -1))
        return seen.reshape(*seen.shape[:2], -1)


class TransformerDecoder(nnx.Module):
    """Paints each cell of a grid by attending to the image elements."""

    def __init__(self, config: DecoderConfig, elements: ElementsConfig, dtype: DTypeLike, *, rngs: nnx.Rngs):
        self.query_grid, self.frequencies = config.query_grid, elements.frequencies
        self.content_channels = elements.content_channels
        self.cell = elements.image_size // config.query_grid  # pixels per side painted by one query
        self.embed_query = nnx.Linear(2 * 2 * elements.frequencies, config.channels, dtype=dtype, rngs=rngs)
        self.nearest = NearestElements(config, elements, dtype, rngs=rngs) if config.nearest else None
        self.blocks = nnx.List([DecoderBlock(config, elements, dtype, rngs=rngs) for _ in range(config.blocks)])
        self.norm_out = nnx.LayerNorm(config.channels, rngs=rngs)
        self.to_pixels = nnx.Linear(config.channels, self.cell**2 * 3, rngs=rngs)  # float32: it outputs the image

    def __call__(self, elements: ImageElements) -> Float[Array, "B H W 3"]:
        """Reconstruct the image, in [-1, 1] but not clipped."""
        keys = element_tokens(elements, self.frequencies)
        values = keys[..., : self.content_channels]

        g, c = self.query_grid, self.cell
        y, x = jnp.meshgrid(*[(jnp.arange(g) + 0.5) / g] * 2, indexing="ij")
        points = jnp.stack([x, y], axis=-1).reshape(g * g, 2)
        queries = embed_position(points, self.frequencies)
        hidden = jnp.broadcast_to(self.embed_query(queries), (keys.shape[0], g * g, self.embed_query.out_features))
        if self.nearest is not None:
            hidden = hidden + self.nearest(points, elements)
        for block in self.blocks:
            hidden = block(hidden, keys, values)
        pixels = self.to_pixels(self.norm_out(hidden).astype(jnp.float32))
        return pixels.reshape(-1, g, g, c, c, 3).swapaxes(2, 3).reshape(-1, g * c, g * c, 3)


def look_nearby(params: Params, config: DecoderConfig, elements: ElementsConfig, seed: int) -> Params:
    """Return freshly drawn parameters of a `TransformerDecoder`, changed so that queries attend to the elements nearest
    to them before any training.

    A random decoder looks everywhere, and most of a short training passes until it has found out that an image is
    painted where its elements are. The paper does not say how it starts; this is our own choice.

    Queries and keys embed positions with the same frequencies 2^k pi. Their product is made the sum of 2^-k
    cos(2^k pi d), which falls steadily with the distance d along an axis, by about three for each cell of the grid. Of
    several heads, each looks in another direction, a third of a cell away from the query in the first block, and twice
    as far in every further one. One head alone could not tell where in its element a query is.
    """
    frequencies, width = elements.frequencies, config.channels // config.cross_heads
    random, used = np.random.default_rng(seed), min(frequencies, width // 4)  # as many as fit into a head
    side = max(config.channels, 4 * frequencies)
    embed = np.linalg.qr(random.standard_normal((side, side)))[0][: 4 * frequencies, : config.channels]
    changed = {"embed_query.kernel": embed * np.sqrt(config.channels / (2 * frequencies))}
    rates = np.pi * 2.0 ** np.arange(used)
    strength = elements.grid / 2 * np.pi / rates * np.sqrt(2 * frequencies * width / config.channels)
    for block in range(config.blocks):
        name = f"blocks.{block}.cross_attention"
        to_q = np.array(params[f"{name}.to_q.kernel"])
        to_k = 0.1 * np.asarray(params[f"{name}.to_k.kernel"])  # content and size hardly count yet
        for head in range(config.cross_heads):
            angle = 2 * np.pi * (head + 0.5) / config.cross_heads
            reach = 0.35 * 2**block / elements.grid if config.cross_heads > 1 else 0.0
            for axis, away in enumerate((reach * np.cos(angle), reach * np.sin(angle))):
                sine = 2 * axis * frequencies + np.arange(used)  # features of the embedded position
                cosine, column = sine + frequencies, head * width + 2 * axis * used + np.arange(used)
                to_q[:, column], to_q[:, column + used] = embed[sine].T, embed[cosine].T
                sine, cosine = elements.content_channels + sine, elements.content_channels + cosine
                to_k[:, column] = to_k[:, column + used] = 0
                to_k[sine, column] = to_k[cosine, column + used] = strength * np.cos(rates * away)
                to_k[cosine, column] = strength * np.sin(rates * away)
                to_k[sine, column + used] = -strength * np.sin(rates * away)
        changed |= {f"{name}.to_q.kernel": to_q, f"{name}.to_k.kernel": to_k}
    return params | {name: value.astype(np.float32) for name, value in changed.items()}


def resize_cells(params: Params, cell: int) -> Params:
    """Return parameters of a `TransformerDecoder` whose queries paint `cell` x `cell` px instead of their number.

    A model of one image size so starts at another: its images look like the old ones, resized.
    """
    kernel = params["to_pixels.kernel"]
    before = int(np.sqrt(kernel.shape[1] // 3))

    def resized(values: Float[Array, "... P"]) -> Float[Array, "... Q"]:
        pixels = jnp.asarray(values).reshape(-1, before, before, 3)
        pixels = jax.image.resize(pixels, (len(pixels), cell, cell, 3), "linear")
        return pixels.reshape(*values.shape[:-1], cell**2 * 3)

    return params | {f"to_pixels.{name}": resized(params[f"to_pixels.{name}"]) for name in ("kernel", "bias")}
