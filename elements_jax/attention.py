"""The one attention function of every network here; it picks its kernel by platform and static shape."""

import jax
from jaxtyping import Array, Float


def attention(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
) -> Float[Array, "B Q heads C"]:
    """softmax(q k^T / sqrt(C)) v for each head, without a mask; the softmax is in float32."""
    return jax.nn.dot_product_attention(q_BxQxhxC, k_BxKxhxC, v_BxKxhxC)
