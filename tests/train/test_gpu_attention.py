"""Every attention of every preset passes JAX's own checks for NVIDIA GPUs, with the GPU's conditions simulated.

So the tests find shapes that a GPU would refuse without having one. `tests/gpu` tests the results.
"""

import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from configs import PRESETS
from elements_jax.models import blocks
from elements_jax.models.attention import attention
from elements_jax.models.method import decode_elements
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import encode_image

MODULE = importlib.import_module("elements_jax.models.attention")
CAPABILITIES = (  # Ampere, Hopper, Blackwell
    pytest.param("8.0", marks=pytest.mark.slow),
    "9.0",
    pytest.param("10.0", marks=pytest.mark.slow),
)
MODELS = {preset.model: name for name, preset in reversed(PRESETS.items())}


@pytest.fixture(params=CAPABILITIES)
def capability(request, monkeypatch):
    """Simulate GPUs of this compute capability, with cuDNN 9.10."""
    simulate_gpu(monkeypatch, request.param)
    yield tuple(map(int, request.param.split(".")))
    jax.clear_caches()
    MODULE._cudnn_takes.cache_clear()


@pytest.fixture
def hopper(monkeypatch):
    simulate_gpu(monkeypatch, "9.0")
    yield
    jax.clear_caches()
    MODULE._cudnn_takes.cache_clear()


def simulate_gpu(monkeypatch, capability):
    device = SimpleNamespace(compute_capability=capability)
    backend = SimpleNamespace(platform_version="cuda 13000")
    bridge = SimpleNamespace(get_backend=lambda: backend, local_devices=lambda backend: [device])
    monkeypatch.setattr(cudnn, "xla_bridge", bridge)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda backend: [device])
    jax.clear_caches()
    MODULE._cudnn_takes.cache_clear()


@pytest.fixture(scope="module")
def shapes_by_model():
    """For each preset's model, the (queries, keys, heads, channels) of all attentions in every network."""
    return {name: attentions(model) for model, name in MODELS.items()}


def attentions(model):
    found = set()

    def recorded(q, k, v):
        found.add((q.shape[1], k.shape[1], *q.shape[2:]))
        return q

    networks = Networks(model)
    names = ("encoder", "decoder", "vae", "text_encoder", "unet")
    size, latent = model.elements.image_size, (1, model.latent_size, model.latent_size, model.vae.latent_channels)

    def every_network(params, image, label_map, prompt, noise):
        elements = encode_image(networks, params, image, label_map)
        picture = decode_elements(networks, params, elements, prompt, prompt, noise, jnp.ones(1), steps=2)
        return networks.decoder(params["decoder"], elements), networks.vae.module(params["vae"]).encode(picture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "attention", recorded)
        jax.eval_shape(
            every_network,
            {name: getattr(networks, name).shapes() for name in names},
            jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
            jax.ShapeDtypeStruct((1, size, size), jnp.int32),
            jax.ShapeDtypeStruct((1, model.text.max_length), jnp.int32),
            jax.ShapeDtypeStruct(latent, jnp.float32),
        )
    return found


def kernels(queries, keys, heads, channels, dtype=jnp.bfloat16):
    """Return the numbers of cuDNN's forward and backward calls in a program lowered for a GPU."""
    q, k = (jax.ShapeDtypeStruct((2, length, heads, channels), dtype) for length in (queries, keys))

    def with_gradient(q, k, v):
        out, pullback = jax.vjp(attention, q, k, v)
        return pullback(out)

    return str(jax.jit(with_gradient).trace(q, k, k).lower(lowering_platforms=("cuda",)).as_text()).count(
        "__cudnn$fmha"
    )


def test_cudnn_takes_every_large_attention_and_its_gradient(capability, shapes_by_model):
    widest = 256 if capability[0] == 9 else 128
    shapes = sorted({(*lengths, 2, channels) for *lengths, _, channels in set.union(*shapes_by_model.values())})
    assert (4096, 77, 2, 40) in shapes  # Stable Diffusion's text
    for queries, keys, heads, channels in shapes:
        large = min(queries, keys) >= 64 and channels % 8 == 0 and channels <= widest
        assert kernels(queries, keys, heads, channels) == 2 * large, (queries, keys, heads, channels)


@pytest.mark.usefixtures("hopper")
def test_hopper_computes_all_of_stable_diffusions_unet_by_cudnn(shapes_by_model):
    left = {shape for shape in shapes_by_model["sd15"] if not kernels(*shape)}
    # The VAE's one head, wider than any kernel, and the content encoder's four pixels.
    assert left == {(4096, 4096, 1, 512), (4, 4, 1, 512), (1024, 256, 1, 512)}


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("queries", [1, 63, 64, 65, 100, 4095])
@pytest.mark.parametrize("keys", [1, 64, 77])
def test_every_pair_of_lengths_is_taken_or_left_to_xla(queries, keys):
    assert kernels(queries, keys, 2, 40) == 2 * (min(queries, keys) >= 64)


@pytest.mark.parametrize("channels", [1, 4, 8, 20, 40, 56, 128, 136, 160, 256, 264, 512])
def test_every_width_is_taken_or_left_to_xla(capability, channels):
    widest = 256 if capability[0] == 9 else 128
    assert kernels(64, 77, 2, channels) == 2 * (channels % 8 == 0 and channels <= widest)
    assert kernels(64, 77, 2, channels, jnp.float32) == 0


@pytest.mark.usefixtures("capability")
@pytest.mark.parametrize("capability", ["7.5"], indirect=True)
def test_gpus_before_ampere_are_left_to_xla():
    assert kernels(64, 64, 2, 40) == 0


@pytest.mark.usefixtures("hopper")
def test_a_gpus_host_computes_on_its_cpu():
    """The lowering of a program chooses the kernel, not the host's other devices."""
    q, k = (jax.ShapeDtypeStruct((2, length, 2, 40), jnp.bfloat16) for length in (128, 77))
    lowered = jax.jit(attention).trace(q, k, k).lower(lowering_platforms=("cpu",))
    assert "cudnn" not in lowered.as_text()
    assert jnp.isfinite(attention(*(jnp.ones(x.shape, x.dtype) for x in (q, k, k)))).all()


@pytest.mark.usefixtures("hopper")
def test_padding_changes_neither_result_nor_gradient(monkeypatch):
    """XLA computes cuDNN's padded inputs: 77 of 128 keys with their number, 65 of 128 queries."""
    asked = []
    original = jax.nn.dot_product_attention

    def by_xla(q, k, v, *, key_value_seq_lengths=None, implementation):
        asked.append((q.shape[1], k.shape[1], implementation))
        return original(q, k, v, key_value_seq_lengths=key_value_seq_lengths)

    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, cotangent = (jax.random.normal(key, (2, n, 2, 8)) for key, n in zip(keys, (65, 77, 77, 65), strict=True))
    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    out, pullback = jax.vjp(MODULE.attention_by_cudnn, q, k, v)
    expected, expected_pullback = jax.vjp(original, q, k, v)
    assert asked == [(128, 128, "cudnn")]
    for found, right in zip((out, *pullback(cotangent)), (expected, *expected_pullback(cotangent)), strict=True):
        assert jnp.allclose(found, right, atol=1e-5)
