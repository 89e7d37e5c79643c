"""This project's side: its own step, stages and pipeline, compiled from shapes; arrays are made before measuring."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import photo
from elements_jax.config import (
    DecoderConfig,
    ElementsConfig,
    EncoderConfig,
    ModelConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
)
from elements_jax.diffusion.samplers import ddim_sample
from elements_jax.diffusion.schedule import add_noise, make_schedule
from elements_jax.metrics.lpips import PerceptualDistance
from elements_jax.models.functional import Functional
from elements_jax.models.networks import Networks
from elements_jax.parallel import sharding
from elements_jax.pipeline.pipeline import jit_decode
from tests.benchmarks.gpu.turns import Measure, run, say, size_of, timed
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, TrainConfig, VAETrainConfig
from train.cost.ahead_of_time import sampler_arguments
from train.cost.chips import CHIPS
from train.cost.flops import cost, training_cost
from train.stage import example_keys, normal
from train.stages.autoencoder import AutoencoderStage
from train.stages.conditioning import with_partner_example
from train.stages.perceptual import PerceptualLoss
from train.stages.vae import VAEStage
from train.state import abstract_state, make_optimizer
from train.step import jit_step

SD15 = ModelConfig(dtype="bfloat16")
PHOTO = replace(photo.MODEL, dtype="bfloat16")
SMALL = ModelConfig(
    elements=ElementsConfig(image_size=32, grid=4, patch_size=8, frequencies=4),
    encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), norm_groups=4),
    decoder=DecoderConfig(blocks=1, channels=32, self_heads=2, query_grid=8),
    vae=VAEConfig(block_out_channels=(8, 16), layers_per_block=1, norm_groups=4),
    text=TextConfig(vocab_size=256, hidden_size=32, intermediate_size=64, layers=1, heads=2),
    unet=UNetConfig(block_out_channels=(16, 32), attention_levels=(True, True), layers_per_block=1, norm_groups=4),
    dtype="bfloat16",
)
LIKE_SD = {"steps": 180_000, "learning_rate": 6.4e-5}


class UNetStage:
    """Only stage 2's UNet, for the comparison with PyTorch's: the outputs of frozen networks are in the batch."""

    rows, tokenize, cached = (), None, False

    def __init__(self, model: ModelConfig):
        self.model, self.networks, self.frozen = model, Networks(model), {}

    def init(self, key, pretrained):
        return self.networks.unet.init_missing(pretrained, key)

    def cast(self, params):
        return self.networks.unet.cast(params)

    def loss(self, params, frozen, batch, keys, step):
        time_key, noise_key = jax.vmap(lambda key: jax.random.split(key, 2), out_axes=1)(keys)
        timestep = jax.vmap(lambda key: jax.random.randint(key, (), 0, 1000))(time_key)
        noise = normal(noise_key, batch["latent"].shape[1:])
        unet = self.networks.unet.module(params)
        noisy = add_noise(make_schedule(self.model.diffusion), batch["latent"], noise, timestep)
        predicted = unet(noisy, timestep, unet.context(batch["text"], batch["elements"]))
        return jnp.mean((predicted - noise) ** 2), {}


class VAEStageOfShapes(VAEStage):
    """The VAE's stage without a folder; LPIPS has random weights, which do not change its speed."""

    def __init__(self, model: ModelConfig, train: VAETrainConfig):
        self.model, self.train, self.networks = model, train, Networks(model)
        lpips = Functional(lambda rngs: PerceptualDistance("vgg", jnp.dtype(model.dtype), rngs=rngs))
        self.perceptual, self.frozen = PerceptualLoss(lpips, train.perceptual_weight, None), {"lpips": lpips.shapes()}


class AutoencoderStageOfShapes(AutoencoderStage):
    """Stage 1 without a folder."""

    def __init__(self, model: ModelConfig, train: AutoencoderTrainConfig):
        self.model, self.train, self.networks, self.frozen = model, train, Networks(model), {}


def prepare(section: str, side: str, rehearse: bool) -> Measure:
    if side == "count":
        say(count(rehearse))
        return dict
    model, small = (SMALL, SMALL) if rehearse else (SD15, PHOTO)
    if section.startswith("partition"):
        raise ImportError("partition is PyTorch's")
    if section.startswith("train"):
        train = DiffusionTrainConfig(**LIKE_SD, batch_size=size_of(section))
        return training(UNetStage(model), train, unet_batch(model, train.batch_size))
    if section.startswith("sample"):
        return sampling(model, size_of(section), 2 if rehearse else 50)
    if section.startswith("vae-decode"):
        return decoding(model, size_of(section))
    size = 2 if rehearse else size_of(section)
    if section.startswith("vae-step"):
        vae_train = VAETrainConfig(steps=1000, batch_size=size, learning_rate=1e-3, perceptual_weight=1)
        return training(VAEStageOfShapes(small, vae_train), vae_train, picture_batch(small, size))
    stage1_train = AutoencoderTrainConfig(steps=1000, batch_size=size, learning_rate=1e-3)
    return training(AutoencoderStageOfShapes(small, stage1_train), stage1_train, picture_batch(small, size))


def training(stage: Any, train: TrainConfig, batch: dict[str, jax.ShapeDtypeStruct]) -> Measure:
    optimizer, mesh = make_optimizer(train), sharding.make_mesh(1, 1, jax.local_devices()[:1])
    state, key = abstract_state(stage, optimizer), jax.eval_shape(lambda: jax.random.key(0))
    program = jit_step(stage, optimizer, train, mesh).lower(state, stage.frozen, batch, key).compile()
    lie = sharding.shardings(state, mesh)

    def measure() -> dict[str, Any]:
        kept = {"state": jax.device_put(filled(state), lie)}
        rest = jax.device_put((filled(stage.frozen), filled(batch), jax.random.key(0)), sharding.replicated(mesh))

        def step() -> Any:
            kept["state"], metrics = program(kept["state"], *rest)
            return metrics

        figures = timed(step, jax.block_until_ready, train.batch_size, runs=10)
        metrics = jax.device_get(step())
        return figures | {"loss": float(metrics["loss"]), "skipped": float(metrics["skipped"])} | about(program)

    return measure


def sampling(model: ModelConfig, size: int, steps: int) -> Measure:
    mesh, networks = sharding.make_mesh(1, 1, jax.local_devices()[:1]), Networks(model)
    arguments = sampler_arguments(networks, size, mesh)
    program = jit_decode(networks, mesh).lower(*arguments, steps=steps, sampler=ddim_sample).compile()
    return measuring(program, arguments, size, runs=4)


def decoding(model: ModelConfig, size: int) -> Measure:
    networks = Networks(model)
    shape = size, model.latent_size, model.latent_size, model.vae.latent_channels
    arguments = networks.vae.shapes(), jax.ShapeDtypeStruct(shape, jnp.float32)
    program = jax.jit(lambda params, latent: networks.vae.module(params).decode(latent)).lower(*arguments).compile()
    return measuring(program, arguments, size, runs=8)


def measuring(program: Any, shapes: Any, size: int, runs: int) -> Measure:
    def measure() -> dict[str, Any]:
        arguments = jax.device_put(filled(shapes), jax.local_devices()[0])
        figures = timed(lambda: program(*arguments), jax.block_until_ready, size, runs)
        finite = bool(np.isfinite(jax.device_get(program(*arguments))).all())
        return figures | {"finite": finite} | about(program)

    return measure


def about(program: Any) -> dict[str, Any]:
    """Return the device, and properties of the program that identify it."""
    device, text, memory = jax.local_devices()[0], program.as_text() or "", program.memory_analysis()
    chip = CHIPS.get(device.device_kind)
    return {
        "device": device.device_kind,
        "jax": jax.__version__,
        "peak_flops": chip.flops if chip else None,
        "temporary_gb": memory.temp_size_in_bytes / 1e9,
        "cudnn_attentions": text.count('custom_call_target="__cudnn$fmha'),
        "cudnn_convolutions": text.count('custom_call_target="__cudnn$conv'),
        "cublas": text.count('custom_call_target="__cublas'),
    }


def unet_batch(model: ModelConfig, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype)

    side = model.latent_size
    return {
        "latent": array(jnp.float32, side, side, model.vae.latent_channels),
        "text": array(jnp.float32, model.text.max_length, model.text.hidden_size),
        "elements": array(jnp.float32, model.elements.num_elements, model.elements.token_channels),
        "index": array(jnp.int32),
        "label_map": array(jnp.int32, 1, 1),  # for `with_partner_example`
        "object_mask": array(jnp.bool, 1, 1),
    }


def picture_batch(model: ModelConfig, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    shape = size, model.elements.image_size, model.elements.image_size
    return {
        "image": jax.ShapeDtypeStruct((*shape, 3), jnp.uint8),
        "label_map": jax.ShapeDtypeStruct(shape, jnp.int32),
        "object_mask": jax.ShapeDtypeStruct(shape, jnp.bool),
        "index": jax.ShapeDtypeStruct((size,), jnp.int32),
    }


_NUMBERS = np.random.default_rng(0).standard_normal(2**22 + 7, np.float32)


def filled(shapes: Any) -> Any:
    """Return arrays of these shapes, small enough to keep features finite; made on the host, without compilation."""

    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if shape.dtype == jnp.bool:
            return np.ones(shape.shape, bool)
        if jnp.issubdtype(shape.dtype, jnp.integer):
            return np.random.default_rng(1).integers(0, 200, shape.shape).astype(shape.dtype)
        if len(shape.shape) == 1:
            return np.ones(shape.shape, shape.dtype)
        scale = np.float32(1 / np.sqrt(np.prod(shape.shape[:-1]))) if len(shape.shape) in (2, 4) else np.float32(1)
        return (np.resize(_NUMBERS, shape.shape) * scale).astype(shape.dtype)

    return jax.tree.map(draw, shapes)


def count(rehearse: bool) -> dict[str, float]:
    """Return the operations per image of each section, by this project's own count (`train.cost.flops`)."""
    model, small = (SMALL, SMALL) if rehearse else (SD15, PHOTO)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def of_step(stage: Any, params: Any, batch: Any) -> float:
        def loss(params, frozen, batch, key):
            keys = example_keys(key, 0, batch["index"])
            return stage.loss(params, frozen, with_partner_example(batch), keys, jnp.int32(0))[0]

        return training_cost(loss, params, stage.frozen, batch, key).flops

    networks, small_networks = Networks(model), Networks(small)
    vae_train = VAETrainConfig(steps=1, batch_size=1, learning_rate=1, perceptual_weight=1)
    stage1_train = AutoencoderTrainConfig(steps=1, batch_size=1, learning_rate=1)
    vae_step = of_step(VAEStageOfShapes(small, vae_train), small_networks.vae.shapes(), picture_batch(small, 1))
    stage1 = {name: getattr(small_networks, name).shapes() for name in ("encoder", "decoder")}
    train = of_step(UNetStage(model), networks.unet.shapes(), unet_batch(model, 1))
    mesh = sharding.make_mesh(1, 1, jax.local_devices()[:1])
    shared, batch = sampler_arguments(networks, 1, mesh)

    def sampler(shared, batch):
        return jit_decode(networks, mesh)(shared, batch, steps=2 if rehearse else 50, sampler=ddim_sample)

    shape = 1, model.latent_size, model.latent_size, model.vae.latent_channels
    latent = jax.ShapeDtypeStruct(shape, jnp.float32)
    decode: Callable = lambda params, latent: networks.vae.module(params).decode(latent)  # noqa: E731
    sample, decoded = cost(sampler, shared, batch).flops, cost(decode, networks.vae.shapes(), latent).flops
    return {
        "train-8": train,
        "train-32": train,
        "sample-1": sample,
        "sample-4": sample,
        "vae-decode-4": decoded,
        "vae-step-32": vae_step,
        "stage1-64": of_step(AutoencoderStageOfShapes(small, stage1_train), stage1, picture_batch(small, 1)),
    }


if __name__ == "__main__":
    run(prepare)
