"""The attention function of all networks; it chooses a kernel by platform and static shape."""

from functools import cache

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
from jaxtyping import Array, Float

# Scores per step on the CPU: 2 MB in float32, about a core's cache.
SCORES_A_STEP = 2**19

# Scores that XLA's own attention holds at once: 512 MB in float32; a gradient needs about three times that.
SCORES_A_PART = 2**27

# Block size of queries and keys in the TPU's kernel, a chosen multiple of 128.
BLOCKS = (512, 256, 128)

# Minimum number of queries and keys for cuDNN: its kernels use tiles of 64, and some refuse a single key.
CUDNN_TILE = 64


@jax.jit  # traced once per shape, of which a network has few
def attention(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
) -> Float[Array, "B Q heads C"]:
    """softmax(q k^T / sqrt(C)) v for each head, without a mask; the softmax is in float32.

    Every length, width and float type works on every platform: XLA handles what the platform's kernel does not support.
    Raises ValueError if the shapes or types of the three do not match.
    """
    _check(q_BxQxhxC, k_BxKxhxC, v_BxKxhxC)
    tpu = attention_on_chip if _fits_on_chip(q_BxQxhxC, k_BxKxhxC) else attention_in_parts
    shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q_BxQxhxC, k_BxKxhxC))
    gpu = attention_by_cudnn if _cudnn_takes(*shapes) else attention_in_parts
    # Chosen when lowering, because programs are also compiled for other platforms, and a GPU's host computes, too.
    return lax.platform_dependent(
        q_BxQxhxC,
        k_BxKxhxC,
        v_BxKxhxC,
        cpu=attention_in_steps,
        tpu=tpu,
        cuda=gpu,
        default=attention_in_parts,
    )


def _check(q_BxQxhxC: jax.Array, k_BxKxhxC: jax.Array, v_BxKxhxC: jax.Array) -> None:
    q, k, v = (x.shape for x in (q_BxQxhxC, k_BxKxhxC, v_BxKxhxC))
    dtypes = {x.dtype for x in (q_BxQxhxC, k_BxKxhxC, v_BxKxhxC)}
    fit = len(q) == len(k) == 4 and k == v and (q[0], *q[2:]) == (k[0], *k[2:]) and min(*q, *k) > 0
    if not fit or len(dtypes) > 1 or not jnp.issubdtype(q_BxQxhxC.dtype, jnp.floating):
        raise ValueError(
            "attention: expected queries (B, Q, heads, C), keys and values (B, K, heads, C) of one float type and none "
            f"empty, got {q}, {k} and {v} of {', '.join(sorted(map(str, dtypes)))}"
        )


def attention_by_cudnn(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
) -> Float[Array, "B Q heads C"]:
    """`attention` with cuDNN's FlashAttention on NVIDIA GPUs, for the shapes that `_cudnn_takes` accepts.

    JAX refuses odd lengths under a gradient, so these are padded to whole tiles. Padding keys are masked, and the
    outputs of padding queries are dropped.
    """
    batch, queries, _, _ = q_BxQxhxC.shape
    keys = k_BxKxhxC.shape[1]
    return jax.nn.dot_product_attention(
        _even(q_BxQxhxC),
        _even(k_BxKxhxC),
        _even(v_BxKxhxC),
        key_value_seq_lengths=jnp.full(batch, keys, jnp.int32) if keys % 2 else None,
        implementation="cudnn",
    )[:, :queries]


def _even(x_BxLxhxC: Float[Array, "B L heads C"]) -> Float[Array, "B even heads C"]:
    """Pad an odd length with zeros to a multiple of cuDNN's tile."""
    length = x_BxLxhxC.shape[1]
    return jnp.pad(x_BxLxhxC, ((0, 0), (0, -length % CUDNN_TILE if length % 2 else 0), (0, 0), (0, 0)))


@cache
def _cudnn_takes(q_BxQxhxC: jax.ShapeDtypeStruct, k_BxKxhxC: jax.ShapeDtypeStruct) -> bool:
    """Tell whether cuDNN is available and supports these shapes, including their gradient.

    JAX's own checks run while tracing, so this traces. They miss two cases that cuDNN refuses: GPUs older than Ampere,
    and more than 128 channels on GPUs other than Hopper.
    """
    capability = _compute_capability()
    if capability is not None and capability < (8, 0):
        return False
    if q_BxQxhxC.shape[-1] > (256 if capability is not None and capability[0] == 9 else 128):
        return False
    if min(q_BxQxhxC.shape[1], k_BxKxhxC.shape[1]) < CUDNN_TILE:
        return False

    def with_gradient(q_BxQxhxC, k_BxKxhxC, v_BxKxhxC):
        out_BxQxhxC, pullback = jax.vjp(attention_by_cudnn, q_BxQxhxC, k_BxKxhxC, v_BxKxhxC)
        return pullback(out_BxQxhxC)

    try:
        jax.eval_shape(with_gradient, q_BxQxhxC, k_BxKxhxC, k_BxKxhxC)
    except (NotImplementedError, RuntimeError):  # the shape is not supported; there is no cuDNN
        return False
    return True


def _compute_capability() -> tuple[int, ...] | None:
    """Return the capability of this host's NVIDIA GPUs, such as (9, 0) for Hopper; None without GPUs."""
    try:
        return tuple(map(int, jax.local_devices(backend="cuda")[0].compute_capability.split(".")))
    except RuntimeError:
        return None


def attention_in_parts(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
) -> Float[Array, "B Q heads C"]:
    """`attention` with XLA's own operations, at most about `SCORES_A_PART` scores at once.

    For more, the queries are split, and the gradient recomputes their scores.
    """
    batch, queries, heads, channels = q_BxQxhxC.shape
    keys = k_BxKxhxC.shape[1]
    queries_a_part = max(1, SCORES_A_PART // (batch * heads * keys))
    if queries <= queries_a_part:
        return jax.nn.dot_product_attention(q_BxQxhxC, k_BxKxhxC, v_BxKxhxC)
    parts = -(-queries // queries_a_part)
    queries_a_part = -(-queries // parts)  # about equal, so that the last needs little padding
    added = parts * queries_a_part - queries
    padded = jnp.pad(q_BxQxhxC, ((0, 0), (0, added), (0, 0), (0, 0)))
    q_PxBxQxhxC = padded.reshape(batch, parts, queries_a_part, heads, channels).swapaxes(0, 1)

    @jax.checkpoint
    def one_part(q_BxQxhxC):
        return jax.nn.dot_product_attention(q_BxQxhxC, k_BxKxhxC, v_BxKxhxC)

    out_PxBxQxhxC = lax.map(one_part, q_PxBxQxhxC)
    return out_PxBxQxhxC.swapaxes(0, 1).reshape(batch, -1, heads, channels)[:, :queries]


def attention_on_chip(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
    *,
    interpret: bool = False,
) -> Float[Array, "B Q heads C"]:
    """`attention` with JAX's TPU kernel, in which the scores never leave the chip (FlashAttention).

    At 4096 pixels they are 1 GB per example and layer, which dozens of passes over memory would read and write.
    Channels span sublanes, so that SD's 40 and 80 are not padded to 128. `interpret` runs it without a TPU.
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
    """Tell whether the kernel supports these lengths. Short ones, such as a text's 77 tokens, are left to XLA."""
    return all(length % BLOCKS[-1] == 0 for length in (q_BxQxhxC.shape[1], k_BxKxhxC.shape[1]))


def attention_in_steps(
    q_BxQxhxC: Float[Array, "B Q heads C"],
    k_BxKxhxC: Float[Array, "B K heads C"],
    v_BxKxhxC: Float[Array, "B K heads C"],
) -> Float[Array, "B Q heads C"]:
    """`attention` as a loop over groups of heads, or of queries of one head, with about `SCORES_A_STEP` scores.

    On a CPU attention is limited by moving its scores, (B, heads, Q, K) in total, through memory. In cache they are
    computed at least twice as fast, and for the gradient recomputing them is cheaper than storing them.
    """
    batch, queries, heads, channels = q_BxQxhxC.shape
    keys = k_BxKxhxC.shape[1]
    fit = max(1, SCORES_A_STEP // keys)
    queries_a_step = max(n for n in range(1, queries + 1) if queries % n == 0 and n <= fit)

    def one_head(qkv):
        q_QxC, k_KxC, v_KxC = qkv
        steps = q_QxC.reshape(-1, queries_a_step, channels)
        return lax.map(lambda q: _one_step(q, k_KxC, v_KxC), steps).reshape(q_QxC.shape)

    scaled = q_BxQxhxC * channels**-0.5  # fewer numbers than scores
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
    # Normalised after the product with the values, which has fewer numbers than the weights.
    out_QxC = (_dot(weights_QxK.astype(v_KxC.dtype), v_KxC) / sum_Qx1).astype(q_QxC.dtype)
    return out_QxC, (q_QxC, k_KxC, v_KxC, out_QxC, largest_Qx1 + jnp.log(sum_Qx1))


def _backward(residuals, d_out_QxC):
    """Dao et al. 2022, FlashAttention, Algorithm 4: recompute the weights from their logarithmic sum."""
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
