"""Content encoder and transformer decoder: the paper's shapes, and the properties that the method needs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from elements_jax.config import DecoderConfig, ElementsConfig, EncoderConfig, ModelConfig, UNetConfig, VAEConfig
from elements_jax.elements import ImageElements
from elements_jax.models.attention import attention
from elements_jax.models.blocks import Conv3x3
from elements_jax.models.light_decoder import NearestElements, look_nearby
from elements_jax.models.networks import Networks

SMALL = ModelConfig(
    elements=ElementsConfig(image_size=16, grid=3, patch_size=8, content_channels=6, frequencies=2),
    encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), norm_groups=4),
    decoder=DecoderConfig(blocks=2, channels=16, self_heads=4, cross_heads=1, mlp_ratio=2, query_grid=4),
    vae=VAEConfig(block_out_channels=(8,), norm_groups=4),
    unet=UNetConfig(block_out_channels=(8,), attention_levels=(True,), heads=2, norm_groups=4),
)
N = SMALL.elements.num_elements
KERNELS = ("embed_content", "embed_x", "embed_y", "to_score", "to_value")
networks = Networks(SMALL)


@pytest.fixture(scope="module")
def elements() -> ImageElements:
    rng = np.random.default_rng(0)
    content, position = rng.normal(size=(2, N, 6)), rng.uniform(size=(2, N, 4))
    return ImageElements(jnp.float32(content), jnp.float32(position), jnp.asarray(rng.random((2, N)) < 0.8))


def test_the_papers_networks_have_the_papers_shapes():
    paper = Networks(ModelConfig())
    patches = jax.ShapeDtypeStruct((2, 256, 32, 32, 3), jnp.float32)
    content = jax.eval_shape(paper.encoder, paper.encoder.shapes(), patches)
    assert content.shape == (2, 256, 32)
    shapes = paper.decoder.shapes()
    assert shapes["blocks.3.cross_attention.to_k.kernel"].shape == (112, 512)
    assert shapes["blocks.3.cross_attention.to_v.kernel"].shape == (32, 512)  # no position in the values
    assert shapes["to_pixels.kernel"].shape == (512, 16 * 16 * 3)
    assert {name.split(".")[1] for name in shapes if name.startswith("blocks")} == set("0123")

    def decode(params, content):
        elements = ImageElements(content, jnp.zeros((2, 256, 4)), jnp.ones((2, 256), bool))
        return paper.decoder(params, elements)

    assert jax.eval_shape(decode, shapes, content).shape == (2, 512, 512, 3)


def test_the_encoder_sees_each_patch_separately():
    params = networks.encoder.init(jax.random.key(0))
    patches = jax.random.uniform(jax.random.key(1), (2, N, 8, 8, 3), minval=-1)
    content = networks.encoder(params, patches)
    changed = networks.encoder(params, patches.at[0, 3].set(0))
    differs = np.abs(np.asarray(changed - content)).max(-1) > 1e-6
    assert differs.sum() == 1
    assert differs[0, 3]


def test_the_decoder_does_not_depend_on_the_order_of_elements(elements):
    params = networks.decoder.init(jax.random.key(0))
    order = np.random.default_rng(1).permutation(N)
    shuffled = jax.tree.map(lambda leaf: leaf[:, order], elements)
    image = networks.decoder(params, elements)
    assert image.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(networks.decoder(params, shuffled), image, atol=1e-5)


def test_deleted_elements_count_only_by_their_softmax_slot(elements):
    params = networks.decoder.init(jax.random.key(0))
    deleted = dataclasses.replace(elements, valid=elements.valid.at[0, 2].set(False))
    other = dataclasses.replace(deleted, content=deleted.content.at[0, 2].set(9), position=deleted.position * 1)
    image = networks.decoder(params, deleted)
    np.testing.assert_array_equal(networks.decoder(params, other), image)
    without = jax.tree.map(lambda leaf: jnp.delete(leaf, 2, axis=1), deleted)
    assert np.abs(np.asarray(networks.decoder(params, without)[0] - image[0])).max() > 1e-4


def test_each_query_paints_its_own_cell(elements):
    """With a head that paints one number per query, the image is the enlarged grid of queries, in order."""
    params = networks.decoder.init(jax.random.key(0))
    cell = 16 // 4
    pixel = jnp.arange(cell * cell * 3, dtype=jnp.float32)
    params |= {"to_pixels.kernel": jnp.zeros((16, cell * cell * 3)), "to_pixels.bias": pixel}
    image = networks.decoder(params, elements)[0]
    expected = np.tile(np.arange(cell * cell * 3).reshape(cell, cell, 3), (4, 4, 1))
    np.testing.assert_array_equal(image, expected)


def seen_by(params, point, content, position, valid, count, heads):
    """Return what a query sees of the elements nearest to it, one element after another."""
    kernel = {name: np.float64(params[f"{name}.kernel"]) for name in KERNELS}
    bias = {name: np.float64(params[f"{name}.bias"]) for name in KERNELS}
    offsets = (point - position[:, :2]) / (position[:, 2:] + 1 / SMALL.elements.grid)
    distances = np.where(valid, np.square(offsets).sum(-1), np.inf)
    scores, values = [], []
    for n in np.argsort(distances, kind="stable")[:count]:
        hidden = content[n] @ kernel["embed_content"] + bias["embed_content"] if valid[n] else 0
        for name, along in zip(("embed_x", "embed_y"), offsets[n], strict=True):
            angles = along * np.pi * 2.0 ** np.arange(4)
            hidden = hidden * (np.concatenate([np.sin(angles), np.cos(angles)]) @ kernel[name] + bias[name])
        scores.append(hidden @ kernel["to_score"] + bias["to_score"])
        values.append((hidden @ kernel["to_value"] + bias["to_value"]).reshape(heads, -1))
    fade = np.clip((1 - np.sort(distances)[:count, None]) / 0.75, 0, 1)
    weights = np.exp(scores) / np.exp(scores).sum(0) * fade
    return (weights[..., None] * np.array(values)).sum(0).reshape(-1)


@pytest.mark.parametrize("left", [N, 2])
def test_a_query_sees_the_elements_nearest_to_it(elements, left):
    """Also where fewer are left than it would see."""
    config = dataclasses.replace(SMALL.decoder, nearest=3, cross_heads=2)
    network = NearestElements(config, SMALL.elements, jnp.float32, rngs=nnx.Rngs(0))
    params = {".".join(path): value for path, value in nnx.to_flat_state(nnx.state(network))}
    params = {name: np.asarray(value[...]) for name, value in params.items()}
    elements = dataclasses.replace(elements, valid=elements.valid & (jnp.arange(N) < left))
    points = np.random.default_rng(2).uniform(size=(20, 2))
    found = network(jnp.float32(points), elements)
    for image in range(2):
        content, position, valid = (
            np.asarray(leaf[image]) for leaf in (elements.content, elements.position, elements.valid)
        )
        expected = [seen_by(params, point, content, position, valid, 3, 2) for point in points]
        np.testing.assert_allclose(found[image], expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_convolution_of_few_pixels_equals_flax_own(size):
    conv = Conv3x3(5, 7, dtype=jnp.float32, rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.arange(7.0)
    x = jax.random.normal(jax.random.key(1), (3, size, size, 5))
    flax = nnx.Conv(5, 7, (3, 3), padding=1, rngs=nnx.Rngs(1))
    flax.kernel[...], flax.bias[...] = conv.kernel[...], conv.bias[...]
    np.testing.assert_allclose(conv(x), flax(x), atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2])
def test_an_untrained_decoder_looks_at_the_nearest_elements(heads, monkeypatch):
    config = DecoderConfig(blocks=2, channels=64, self_heads=4, cross_heads=heads, query_grid=16)
    layout = ElementsConfig(image_size=64, grid=8, patch_size=8, frequencies=6)
    decoder = Networks(dataclasses.replace(SMALL, decoder=config, elements=layout)).decoder
    params = look_nearby(decoder.init(jax.random.key(0)), config, layout, seed=0)
    rng = np.random.default_rng(1)
    centres = (np.stack(np.meshgrid(*[np.arange(8)] * 2), -1).reshape(64, 2) + 0.5 + rng.normal(0, 0.1, (64, 2))) / 8
    elements = ImageElements(
        jnp.float32(rng.normal(size=(1, 64, 32))),
        jnp.float32(np.concatenate([centres, np.full((64, 2), 1 / 8)], -1))[None],
        jnp.ones((1, 64), bool),
    )
    looked = []

    def record(q, k, v):
        looked.append(jax.nn.softmax(jnp.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5, axis=-1))
        return attention(q, k, v)

    monkeypatch.setattr("elements_jax.models.blocks.attention", record)
    decoder.module(params)(elements)
    queries = (np.stack(np.meshgrid(*[np.arange(16)] * 2), -1).reshape(256, 2) + 0.5) / 16
    near = np.linalg.norm(queries[:, None] - centres, axis=-1) < 2 / 8
    assert (np.asarray(looked[0])[0] * near).sum(-1).mean() > 0.9  # a random decoder: 0.2, near's share of all
