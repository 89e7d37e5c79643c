"""Attention and its gradient on the GPU against float64 in NumPy."""

import importlib
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from elements_jax.models.attention import attention
from elements_jax.parallel.sharding import make_mesh

MODULE = importlib.import_module("elements_jax.models.attention")
LENGTHS = [  # queries, keys: odd and even, below, at and beyond a tile of 64, and the networks' own lengths
    (1, 1), (4, 4), (1, 77), (63, 65), (64, 64), (65, 64), (64, 77), (77, 77), (1024, 24), (1024, 77), (1024, 256),
    (625, 77), (2, 1024), (1024, 1024), (4095, 257), (4096, 4096),
]  # fmt: skip
WIDTHS = [1, 4, 20, 32, 56, 80, 128, 136, 160, 256, 512]
SHAPES = [(*lengths, 40) for lengths in LENGTHS] + [(*of, width) for width in WIDTHS for of in ((128, 77), (256, 256))]
# Relative error of the result and of the gradients, by the norms. NVIDIA GPUs round float32 products to TF32.
TOLERANCE = {("float32", "highest"): 2e-5, ("float32", "default"): 4e-3, ("bfloat16", "default"): 1e-2}
CASES = [(dtype, precision, shape) for dtype, precision in TOLERANCE for shape in SHAPES]


def inputs(shape, dtype):
    """Queries, keys, values and the result's cotangent."""
    queries, keys, channels = shape
    rng = np.random.default_rng(queries + keys + channels)
    return [jnp.asarray(rng.normal(size=(2, n, 2, channels)), dtype) for n in (queries, keys, keys, queries)]


def oracle(q, k, v, cotangent):
    """Compute the result, and its gradients by q, k and v, in float64."""
    # One head at a time, by matrix products: at 4096 x 4096 einsum would take minutes.
    results = []
    for q_QxC, k_KxC, v_KxC, d_out_QxC in zip(*map(heads_first, (q, k, v, cotangent)), strict=True):
        scale = q_QxC.shape[-1] ** -0.5
        scores_QxK = q_QxC @ k_KxC.T * scale
        weights_QxK = np.exp(scores_QxK - scores_QxK.max(-1, keepdims=True))
        weights_QxK /= weights_QxK.sum(-1, keepdims=True)
        d_weights_QxK = d_out_QxC @ v_KxC.T
        d_scores_QxK = weights_QxK * (d_weights_QxK - (weights_QxK * d_weights_QxK).sum(-1, keepdims=True)) * scale
        results.append((weights_QxK @ v_KxC, d_scores_QxK @ k_KxC, d_scores_QxK.T @ q_QxC, weights_QxK.T @ d_out_QxC))
    return [np.stack(parts) for parts in zip(*results, strict=True)]


def heads_first(x):
    x = np.asarray(x, np.float64)
    return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])


def with_gradient(q, k, v, cotangent):
    out, pullback = jax.vjp(attention, q, k, v)
    return out, *pullback(cotangent)


def assert_equals_oracle(found, arguments, tolerance):
    names = ("result", "gradient of queries", "gradient of keys", "gradient of values")
    for name, array, expected in zip(names, found, oracle(*arguments), strict=True):
        # A single key has weight 1 for any score, so its gradients are exactly zero.
        error = np.linalg.norm(heads_first(array) - expected) / max(np.linalg.norm(expected), 1e-3)
        assert error < tolerance, f"{name}: relative error {error:.2g}"


@pytest.fixture(scope="module")
def programs(rehearsal):
    """All cases' programs, compiled concurrently."""

    def compiled(dtype, precision, shape):
        with jax.default_matmul_precision(precision):
            return jax.jit(with_gradient).lower(*inputs(shape, dtype)).compile()

    with ThreadPoolExecutor() as threads:
        wanted = [case for case in CASES if not (rehearsal and max(case[2]) > 256)]
        yield {case: threads.submit(compiled, *case) for case in wanted}


@pytest.mark.parametrize(("dtype", "precision", "shape"), CASES)
def test_attention_and_its_gradient_equal_float64(programs, rehearsal, dtype, precision, shape):
    if (dtype, precision, shape) not in programs:
        pytest.skip("too large for a rehearsal")
    program, arguments = programs[dtype, precision, shape].result(), inputs(shape, dtype)
    assert_equals_oracle(program(*arguments), arguments, TOLERANCE[dtype, precision])
    if not rehearsal:
        q, k = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments[:2])
        calls = program.as_text().count('custom_call_target="__cudnn$fmha')
        assert calls == 2 * MODULE._cudnn_takes(q, k)
        if dtype == "bfloat16" and min(shape[:2]) >= 64 and shape[2] % 8 == 0 and shape[2] <= 128:
            assert calls == 2, "cuDNN was not used"


@pytest.mark.parametrize("shape", [(128, 77, 40), (65, 128, 80)])
def test_the_same_within_a_mesh(shape):
    """Training and the pipeline run it inside `shard_map`, over all GPUs."""
    devices = jax.devices()[: 2 - jax.device_count() % 2]  # for the batch of two
    mesh, arguments = make_mesh(1, -1, devices), inputs(shape, "bfloat16")
    split = PartitionSpec(("data", "fsdp"))
    mapped = jax.shard_map(with_gradient, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    assert_equals_oracle(jax.jit(mapped)(*arguments), arguments, 1e-2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpus_host_computes_on_its_cpu(cpu, dtype):
    arguments = jax.device_put(inputs((128, 77, 40), dtype), cpu)
    found = jax.jit(with_gradient)(*arguments)
    assert found[0].devices() == {cpu}
    assert_equals_oracle(found, arguments, 1e-2)


def test_float32_of_long_sequences_is_bounded_in_memory(rehearsal, device):
    """The scores of eight images at 64 x 64 pixels are 4 GB; an unchunked gradient needs four times that."""
    shape = (8, 64 if rehearsal else 4096, 8, 40)
    q, k, v = (jax.random.normal(jax.random.key(i), shape) for i in range(3))
    program = jax.jit(jax.grad(lambda *qkv: attention(*qkv).sum(), (0, 1, 2))).lower(q, k, v).compile()
    assert all(jnp.isfinite(gradient).all() for gradient in program(q, k, v))
    if not rehearsal:
        assert program.memory_analysis().temp_size_in_bytes < 4e9
