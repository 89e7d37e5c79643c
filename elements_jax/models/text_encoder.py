"""CLIP's text transformer, which conditions Stable Diffusion. Frozen (Section 3.3)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from elements_jax.config import TextConfig
from elements_jax.models.functional import normal

EPSILON = 1e-5  # of the layer norms


class CausalAttention(nnx.Module):
    """Multi-head self-attention in which a token sees itself and earlier ones; the softmax is in float32."""

    def __init__(self, channels: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nnx.Linear(channels, channels, dtype=dtype, rngs=rngs) for _ in range(4)
        )

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        q, k, v = (
            project(x).reshape(*x.shape[:2], self.heads, -1) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))


class MLP(nnx.Module):
    """Two layers with CLIP's own approximation of the GELU between them: x sigmoid(1.702 x)."""

    def __init__(self, channels: int, hidden_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(channels, hidden_channels, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(hidden_channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        x = self.fc1(x)
        return self.fc2(x * jax.nn.sigmoid(1.702 * x))


class EncoderLayer(nnx.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: TextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        channels = config.hidden_size
        self.layer_norm1 = nnx.LayerNorm(channels, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.self_attn = CausalAttention(channels, config.heads, dtype=dtype, rngs=rngs)
        self.layer_norm2 = nnx.LayerNorm(channels, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.mlp = MLP(channels, config.intermediate_size, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPTextEncoder(nnx.Module):
    """Maps prompt tokens to the features for the UNet's text attention.

    `dtype` applies to the arithmetic; parameters, norms, softmax and the features are float32.
    """

    def __init__(self, config: TextConfig, dtype: DTypeLike, *, rngs: nnx.Rngs):
        channels = config.hidden_size
        apart = normal(1.0)  # as large as the layers' outputs: even a random encoder distinguishes words
        self.token_embedding = nnx.Embed(config.vocab_size, channels, embedding_init=apart, dtype=dtype, rngs=rngs)
        self.position_embedding = nnx.Embed(config.max_length, channels, dtype=dtype, rngs=rngs)
        self.layers = nnx.List([EncoderLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.layers)])
        self.final_layer_norm = nnx.LayerNorm(channels, epsilon=EPSILON, dtype=jnp.float32, rngs=rngs)

    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        """Return the last hidden state of prompts padded to L <= `max_length` tokens, after the final layer norm.

        Raises ValueError for more tokens than positions.
        """
        length, limit = tokens.shape[1], self.position_embedding.num_embeddings
        if length > limit:
            raise ValueError(f"a prompt has {length} tokens, the text encoder takes at most {limit}")
        x = self.token_embedding(tokens) + self.position_embedding(jnp.arange(length))
        for layer in self.layers:
            x = layer(x)
        return self.final_layer_norm(x)
