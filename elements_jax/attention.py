"""The one attention function of every network here; it picks its kernel by platform and static shape."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
from jaxtyping import Array, Float

# Scores that the CPU computes in one step: 2 MB in float32, about what stays in a core's cache.
SCORES_A_STEP = 2**19

# Queries and keys that the TPU's kernel takes at once, by choice; it needs multiples of 128.
BLOCKS = (512, 256, 128)


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
    tpu = attention_on_chip if _fits_on_chip(q_BxQxhxC, k_BxKxhxC) else jax.nn.dot_product_attention
    # Chosen as late as lowering: a program may be compiled here for another platform.
    return lax.platform_dependent(
        q_BxQxhxC, k_BxKxhxC, v_BxKxhxC, cpu=attention_in_steps, tpu=tpu, default=jax.nn.dot_product_attention
    )


def attention_on_chip(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
    *,
    interpret: bool = False,
) -> Float[Array, "B Q heads C"]:
    """`attention` by JAX's kernel for TPUs, in which the scores never leave the chip (FlashAttention).

    At 4096 pixels they are 1 GB for each example and layer, which dozens of passes over memory would read and write.
    Channels lie across sublanes, so that SD's 40 and 80 are not padded to 128. `interpret` runs it without a TPU.
    """
    (queries, heads), keys = q_BxQxhxC.shape[1:3], k_BxKxhxC.shape[1]
    columns = splash_attention_kernel.QKVLayout.SEQ_MINOR
    q, k = (next(size for size in BLOCKS if length % size == 0) for length in (queries, keys))
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([splash_attention_mask.FullMask((queries, keys))] * heads),
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=q,
            block_kv=k,
            block_kv_compute=k,
            block_q_dkv=q,
            block_kv_dkv=k,
            block_kv_dkv_compute=k,
            use_fused_bwd_kernel=True,
            q_layout=columns,
            k_layout=columns,
            v_layout=columns,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    scaled = q_BxQxhxC * q_BxQxhxC.shape[-1] ** -0.5
    q_BxhxQxC, k_BxhxKxC, v_BxhxKxC = (x.swapaxes(1, 2) for x in (scaled, k_BxKxhxC, v_BxKxhxC))
    return jax.vmap(kernel)(q_BxhxQxC, k_BxhxKxC, v_BxhxKxC).swapaxes(1, 2)


def _fits_on_chip(q_BxQxhxC: jax.Array, k_BxKxhxC: jax.Array) -> bool:
    """Whether the kernel has blocks for these lengths; short ones, as a text's 77 tokens, are left to XLA."""
    return all(length % BLOCKS[-1] == 0 for length in (q_BxQxhxC.shape[1], k_BxKxhxC.shape[1]))


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
    fit = max(1, SCORES_A_STEP // keys)
    queries_a_step = max(n for n in range(1, queries + 1) if queries % n == 0 and n <= fit)

    def one_head(qkv):
        q_QxC, k_KxC, v_KxC = qkv
        steps = q_QxC.reshape(-1, queries_a_step, channels)
        return lax.map(lambda q: _one_step(q, k_KxC, v_KxC), steps).reshape(q_QxC.shape)

    scaled = q_BxQxhxC * channels**-0.5  # there are fewer of these than scores
    qkv = [x.swapaxes(1, 2).reshape(batch * heads, -1, channels) for x in (scaled, k_BxKxhxC, v_BxKxhxC)]
    out = lax.map(one_head, qkv, batch_size=max(1, SCORES_A_STEP // (queries * keys)))
    return out.reshape(batch, heads, queries, channels).swapaxes(1, 2)


@jax.custom_vjp
def _one_step(q_QxC, k_KxC, v_KxC):
    return _forward(q_QxC, k_KxC, v_KxC)[0]


def _forward(q_QxC, k_KxC, v_KxC):
    scores_QxK = _dot(q_QxC, k_KxC.T)
    largest_Qx1 = scores_QxK.max(axis=-1, keepdims=True)
    weights_QxK = jnp.exp(scores_QxK - largest_Qx1)
    sum_Qx1 = weights_QxK.sum(axis=-1, keepdims=True)
    # Normalised after the product with the values: it has fewer numbers than the weights.
    out_QxC = (_dot(weights_QxK.astype(v_KxC.dtype), v_KxC) / sum_Qx1).astype(q_QxC.dtype)
    return out_QxC, (q_QxC, k_KxC, v_KxC, out_QxC, largest_Qx1 + jnp.log(sum_Qx1))


def _backward(residuals, d_out_QxC):
    """Dao et al. 2022, FlashAttention, Algorithm 4: the weights again from their logarithmic sum."""
    q_QxC, k_KxC, v_KxC, out_QxC, log_sum_Qx1 = residuals
    weights_QxK = jnp.exp(_dot(q_QxC, k_KxC.T) - log_sum_Qx1)
    along_Qx1 = (d_out_QxC * out_QxC).sum(axis=-1, keepdims=True, dtype=jnp.float32)
    d_scores_QxK = (weights_QxK * (_dot(d_out_QxC, v_KxC.T) - along_Qx1)).astype(q_QxC.dtype)
    d_v_KxC = _dot(weights_QxK.astype(v_KxC.dtype).T, d_out_QxC)
    gradients = _dot(d_scores_QxK, k_KxC), _dot(d_scores_QxK.T, q_QxC), d_v_KxC
    return tuple(gradient.astype(q_QxC.dtype) for gradient in gradients)


_one_step.defvjp(_forward, _backward)


def _dot(a, b):
    return jnp.dot(a, b, preferred_element_type=jnp.float32)
