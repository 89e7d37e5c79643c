"""The one attention function of every network here; it picks its kernel by platform and static shape."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Scores that the CPU computes in one step: 4 MB in float32, about what stays in a core's cache.
SCORES_A_STEP = 2**20


def attention(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
) -> Float[Array, "B Q heads C"]:
    """softmax(q k^T / sqrt(C)) v for each head, without a mask; the softmax is in float32."""
    half_precision = q_BxQxhxC.dtype in (jnp.bfloat16, jnp.float16)
    channels = q_BxQxhxC.shape[-1]
    # cuDNN's kernel cannot even be traced without a GPU, hence the condition in Python.
    if jax.default_backend() == "gpu" and half_precision and channels % 8 == 0 and channels <= 128:
        return jax.nn.dot_product_attention(q_BxQxhxC, k_BxKxhxC, v_BxKxhxC, implementation="cudnn")
    # Chosen as late as lowering: a program may be compiled here for another platform.
    return lax.platform_dependent(
        q_BxQxhxC, k_BxKxhxC, v_BxKxhxC, cpu=attention_in_steps, default=jax.nn.dot_product_attention
    )


def attention_in_steps(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
) -> Float[Array, "B Q heads C"]:
    """`attention` as a loop over as many heads, or queries of one head, as make `SCORES_A_STEP` scores.

    On a CPU attention is bound by moving its scores, (B, heads, Q, K) in all, through memory. In cache they are made at
    least twice as fast, and for the gradient it pays to make them again rather than to store them.
    """
    batch, queries, heads, channels = q_BxQxhxC.shape
    keys = k_BxKxhxC.shape[1]

    def one_head(qkv):
        q_QxC, k_KxC, v_KxC = qkv

        @jax.checkpoint
        def one_query(q_C):
            scores_K = jnp.dot(q_C, k_KxC.T, preferred_element_type=jnp.float32)
            # Normalised after the product with the values: it has fewer numbers than the weights.
            weights_K = jnp.exp(scores_K - lax.stop_gradient(scores_K.max()))
            return jnp.dot(weights_K.astype(v_KxC.dtype), v_KxC, preferred_element_type=jnp.float32) / weights_K.sum()

        return lax.map(one_query, q_QxC, batch_size=max(1, SCORES_A_STEP // keys))

    scaled = q_BxQxhxC * channels**-0.5  # there are fewer of these than scores
    qkv = [x.swapaxes(1, 2).reshape(batch * heads, -1, channels) for x in (scaled, k_BxKxhxC, v_BxKxhxC)]
    out = lax.map(one_head, qkv, batch_size=max(1, SCORES_A_STEP // (queries * keys)))
    return out.reshape(batch, heads, queries, channels).swapaxes(1, 2).astype(q_BxQxhxC.dtype)
