import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from elements_jax.models import attention as module
from elements_jax.models.attention import attention

SHAPES = [  # B, Q, K, heads, C
    (2, 8, 8, 2, 4),
    (1, 13, 7, 3, 5),
    (3, 1, 9, 1, 8),
    (2, 33, 1, 2, 3),
]


def oracle(q, k, v):
    """Compute attention and the weights of its softmax in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhc->bqhc", weights, v), weights


def oracle_gradients(q, k, v, cotangent):
    """Compute d sum(cotangent * attention) / d (q, k, v) in float64, from the derivative of the softmax."""
    q, k, v, cotangent = (np.asarray(x, np.float64) for x in (q, k, v, cotangent))
    _, weights = oracle(q, k, v)
    d_weights = np.einsum("bqhc,bkhc->bhqk", cotangent, v)
    d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return (
        np.einsum("bhqk,bkhc->bqhc", d_scores, k),
        np.einsum("bhqk,bqhc->bkhc", d_scores, q),
        np.einsum("bhqk,bqhc->bkhc", weights, cotangent),
    )


def random_qkv(shape, seed=0):
    batch, queries, keys, heads, channels = shape
    rng = np.random.default_rng(seed)
    lengths = (queries, keys, keys)
    return [rng.normal(size=(batch, length, heads, channels)).astype(np.float32) for length in lengths]


# One score per step; a few queries of one head and a remainder; a few heads and a remainder; everything at once.
@pytest.fixture(params=[1, 40, 300, 2**20])
def scores_a_step(request, monkeypatch):
    monkeypatch.setattr(module, "SCORES_A_STEP", request.param)
    jax.clear_caches()  # `attention` is traced once for each shape


@pytest.mark.usefixtures("scores_a_step")
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_float64_oracle_with_its_gradients(shape):
    qkv = random_qkv(shape)
    cotangent = random_qkv(shape, seed=1)[0]
    out, pullback = jax.vjp(attention, *map(jnp.asarray, qkv))
    np.testing.assert_allclose(out, oracle(*qkv)[0], rtol=1e-5, atol=1e-6)
    for gradient, expected in zip(pullback(jnp.asarray(cotangent)), oracle_gradients(*qkv, cotangent), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.usefixtures("scores_a_step")
def test_large_scores_do_not_overflow():
    q, k, v = random_qkv((1, 5, 6, 2, 4))
    out = attention(jnp.asarray(100 * q), jnp.asarray(100 * k), jnp.asarray(v))
    np.testing.assert_allclose(out, oracle(100 * q, 100 * k, v)[0], rtol=1e-3, atol=1e-3)  # scores to 1e4 in float32


def test_a_zero_token_takes_its_share_of_the_softmax():
    q, k, v = random_qkv((2, 5, 7, 2, 4))
    k[:, 3], v[:, 3] = 0, 0
    kept = [0, 1, 2, 4, 5, 6]
    weights_sum = np.exp(np.einsum("bqhc,bkhc->bqhk", q, k[:, kept]) / 2).sum(-1, keepdims=True)
    masked_out, _ = oracle(q, k[:, kept], v[:, kept])
    ours = attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v))
    np.testing.assert_allclose(ours, masked_out * weights_sum / (weights_sum + 1), rtol=1e-5, atol=1e-6)


def test_softmax_of_bfloat16_is_float32():
    # With 4096 equal keys each weight is 2**-12; summed in bfloat16, their sum would stop growing at 2**-4.
    q, k = jnp.zeros((1, 1, 1, 8), jnp.bfloat16), jnp.zeros((1, 4096, 1, 8), jnp.bfloat16)
    out = attention(q, k, jnp.ones_like(k))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), 1, rtol=2**-8)


def test_the_loop_is_only_for_the_cpu():
    q, k, v = (jax.ShapeDtypeStruct((1, 4096, 8, 40), jnp.float32) for _ in range(3))
    gradient = jax.jit(jax.grad(lambda *qkv: attention(*qkv).sum()))
    loops = {
        platform: gradient.trace(q, k, v).lower(lowering_platforms=(platform,)).as_text().count("stablehlo.while")
        for platform in ("cpu", "tpu", "cuda")
    }
    assert loops["cpu"] > 0
    assert loops["tpu"] == loops["cuda"] == 0


@pytest.mark.parametrize("shape", [(2, 256, 128, 2, 40), (1, 384, 256, 1, 16)])
def test_the_tpus_kernel_is_the_oracle(shape):
    """The kernel is interpreted; the tolerance of 1e-5 is for sums of a few hundred float32 in another order."""
    q, k, v = random_qkv(shape)
    cotangent = np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

    def weighed(q, k, v):
        out = module.attention_on_chip(q, k, v, interpret=True)
        return (out * cotangent).sum(), out

    gradients, out = jax.jit(jax.grad(weighed, (0, 1, 2), has_aux=True))(q, k, v)
    np.testing.assert_allclose(out, oracle(q, k, v)[0], atol=1e-5)
    for found, expected in zip(gradients, oracle_gradients(q, k, v, cotangent), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_lengths_unsupported_by_the_tpu_kernel_use_xla():
    def lowered(queries, keys):
        q, k = (jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32) for length in (queries, keys))
        return jax.jit(attention).trace(q, k, k).lower(lowering_platforms=("tpu",)).as_text()

    assert "tpu_custom_call" in lowered(256, 128)
    assert "tpu_custom_call" not in lowered(256, 77)
    assert "tpu_custom_call" not in lowered(100, 128)


@pytest.mark.parametrize("scores_a_part", [1, 40, 300, 10**9])
@pytest.mark.parametrize("shape", SHAPES)
def test_xlas_attention_in_parts_is_the_oracle(monkeypatch, shape, scores_a_part):
    monkeypatch.setattr(module, "SCORES_A_PART", scores_a_part)
    qkv, cotangent = random_qkv(shape), random_qkv(shape, seed=1)[0]
    out, pullback = jax.vjp(module.attention_in_parts, *map(jnp.asarray, qkv))
    np.testing.assert_allclose(out, oracle(*qkv)[0], rtol=1e-5, atol=1e-6)
    for gradient, expected in zip(pullback(jnp.asarray(cotangent)), oracle_gradients(*qkv, cotangent), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=2e-6)


def test_attention_by_xla_is_bounded_in_memory():
    """The 4096 x 4096 scores of eight images and eight heads are 4 GB in float32; a gradient would hold several."""
    qkv = [jax.ShapeDtypeStruct((8, 4096, 8, 40), jnp.float32)] * 3
    gradient = jax.jit(jax.grad(lambda *qkv: module.attention_in_parts(*qkv).sum(), (0, 1, 2)))
    largest = max(
        array.aval.size for equation in equations(gradient.trace(*qkv).jaxpr.jaxpr) for array in equation.outvars
    )
    assert largest <= module.SCORES_A_PART


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inside in jaxprs_in_params(equation.params):
            yield from equations(inside)


@pytest.mark.parametrize(
    "lengths_heads_channels_dtypes",
    [
        ((8, 9, 2, 4), (9, 2, 4), (8, 2, 4), "float32"),  # fewer values than keys
        ((8, 9, 2, 4), (9, 3, 4), (9, 3, 4), "float32"),  # other heads
        ((8, 9, 2, 4), (9, 2, 8), (9, 2, 8), "float32"),  # another width
        ((8, 9, 2, 4), (0, 2, 4), (0, 2, 4), "float32"),  # no keys
        ((8, 9, 2, 4), (9, 2, 4), (9, 2, 4), "bfloat16"),  # another type
    ],
)
def test_shapes_that_do_not_belong_together_are_one_clear_error(lengths_heads_channels_dtypes):
    q, k, v, dtype = lengths_heads_channels_dtypes
    q, k, v = jnp.zeros(q), jnp.zeros((8, *k), dtype), jnp.zeros((8, *v), dtype)
    with pytest.raises(ValueError, match="expected queries"):
        module._check(q, k, v)  # in a test, the annotations of `attention` would raise first
