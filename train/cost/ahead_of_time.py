"""Compile programs for accelerators that this machine does not have (`elements compile`).

The programs are those that run: the loop's own step, or the pipeline's own decoding, traced from shapes. The compiler
reports the memory that a device needs; a roofline bounds the time from below.
"""

import ctypes
import dataclasses
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from elements_jax.config import ModelConfig
from elements_jax.diffusion.samplers import ddim_sample
from elements_jax.diffusion.schedule import guidance_weights
from elements_jax.elements import ImageElements
from elements_jax.models.method import decode_elements, jit_decode
from elements_jax.models.networks import Networks
from elements_jax.parallel import sharding
from elements_jax.typing import Tree
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, TrainConfig, VAETrainConfig
from train.cost.chips import CHIPS, H100
from train.cost.flops import cost, training_cost
from train.cost.hlo import Program
from train.cost.roofline import Report, gigabytes
from train.input.stored import label_dtype
from train.stage import example_keys
from train.stages.autoencoder import AutoencoderStage
from train.stages.conditioning import with_partner_example
from train.stages.diffusion import DiffusionStage
from train.stages.diffusion_unfrozen import UnfrozenStage, require_no_draft
from train.stages.vae import VAEStage
from train.stages.vae_adversarial import AdversarialVAEStage
from train.state import abstract_state, make_optimizer
from train.step import jit_step

LOW_EFFORT = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
"""Options of the TPU compiler that make it five to seventeen times faster and need less memory: at full effort the step
of `sd15` took more than 24 GB. With them, all arrays are in HBM; at full effort some are in VMEM, and less data is
moved."""


AnyStage = VAEStage | AutoencoderStage | DiffusionStage


class AbstractStage(DiffusionStage):
    """Stage 2 without a model folder: its frozen networks are only shapes, which is all that compiling needs.

    To run its step, pass arrays of these shapes.
    """

    tokenize: Any = None  # a batch has tokens

    def __init__(self, model: ModelConfig, train: DiffusionTrainConfig):
        self.model, self.train, self.networks = model, train, Networks(model)
        networks = {name: getattr(self.networks, name) for name in self.frozen_networks}
        self.frozen = {name: jax.eval_shape(network.cast, network.shapes()) for name, network in networks.items()}
        self.empty_prompt = np.zeros(model.text.max_length, np.int32)
        if train.cached:
            no_text = (model.text.max_length, model.text.hidden_size)
            self.frozen["no_text"] = jax.ShapeDtypeStruct(no_text, jnp.float32)


class UnfrozenStageOfShapes(AbstractStage, UnfrozenStage):
    """The same for a stage 2 that trains the content encoder."""

    def __init__(self, model: ModelConfig, train: DiffusionTrainConfig):
        require_no_draft(model)
        super().__init__(model, train)


def stage_of_shapes(model: ModelConfig, train: TrainConfig) -> AnyStage:
    """Return the stage that `train` describes, without a model folder.

    Raises ValueError if its loss needs LPIPS, whose weights are not installed.
    """
    if isinstance(train, DiffusionTrainConfig):
        return (AbstractStage if train.encoder == "frozen" else UnfrozenStageOfShapes)(model, train)
    with tempfile.TemporaryDirectory() as folder:  # the other stages read no networks from theirs
        if isinstance(train, VAETrainConfig):
            return (AdversarialVAEStage if train.adversarial_weight else VAEStage)(model, train, Path(folder))
        assert isinstance(train, AutoencoderTrainConfig)
        return AutoencoderStage(model, train, Path(folder))


class DoesNotFit(ValueError):
    """A program needs more memory than a device has."""


def topology_devices(name: str) -> list[Any]:
    """Return the devices of an absent slice: `v4:2x2x2`, `v5e:4x4`, `v5p:2x2x2`, `v6e:4x4`, or `h100:8`.

    Raises ValueError if the compiler does not know the name or is not installed.
    """
    kind, _, shape = name.partition(":")
    try:
        if kind == "h100":
            _load_cudnn()
            described = {"target_config": H100, "topology": f"1x1x{shape}"}
            return topologies.get_topology_desc("h100", "cuda", **described).devices
        one_device_a_chip = {"chip_config_name": "megacore"} if kind == "v4" else {}
        return topologies.get_topology_desc(name, "tpu", **one_device_a_chip).devices
    except Exception as error:  # of the plugin or its absence: they share no class
        raise ValueError(
            f"--topology {name}: expected one like v4:2x2x2, v5e:4x4, v5p:2x2x2, v6e:4x4 or h100:8, and its compiler "
            f"installed (`pip install libtpu`, or jax-cuda13-pjrt, jax-cuda13-plugin and nvidia-cudnn-cu13): {error}"
        ) from error


def _load_cudnn() -> None:
    """Load cuDNN if its package is installed: JAX asks for its version before it traces cuDNN's attention.

    Without it, XLA's own attention is compiled, which is used on a GPU without cuDNN.
    """
    package = importlib.util.find_spec("nvidia.cudnn") if importlib.util.find_spec("nvidia") else None
    for folder in (package and package.submodule_search_locations) or ():
        for library in Path(folder, "lib").glob("libcudnn.so.*"):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def step_arguments(stage: AnyStage, train: TrainConfig, mesh: Mesh) -> tuple[Tree, ...]:
    """Return shapes of (state, frozen, batch, key), sharded as in the loop."""
    state = abstract_state(stage, make_optimizer(train))
    size = (train.batch_size, stage.model.elements.image_size, stage.model.elements.image_size)
    batch = {
        "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
        "label_map": jax.ShapeDtypeStruct(size, label_dtype(stage.model.elements.num_elements)),
        "object_mask": jax.ShapeDtypeStruct(size, jnp.bool),
        "own_mask": jax.ShapeDtypeStruct((train.batch_size,), jnp.bool),
        "tokens": jax.ShapeDtypeStruct((train.batch_size, stage.model.text.max_length), jnp.int32),
        "index": jax.ShapeDtypeStruct((train.batch_size,), jnp.int32),
    }
    if stage.cached:
        latent, text = stage.model.latent_size**2 * stage.model.vae.latent_channels, stage.frozen["no_text"].size
        for name, numbers in (("latent_mean", latent), ("latent_logvar", latent), ("text", text)):
            batch[name] = jax.ShapeDtypeStruct((train.batch_size, numbers), jnp.float16)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def laid(tree: Tree, placement: Any) -> Tree:
        return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), tree, placement)

    def all_alike(tree: Tree, at: NamedSharding) -> Tree:
        return laid(tree, jax.tree.map(lambda _: at, tree))

    replicated = sharding.replicated(mesh)
    return (
        laid(state, sharding.shardings(state, mesh)),
        all_alike(stage.frozen, replicated),
        all_alike(batch, sharding.batch_sharding(mesh)),
        all_alike(key, replicated),
    )


def sampler_arguments(networks: Networks, batch_size: int, mesh: Mesh) -> tuple[Tree, Tree]:
    """Return shapes of the arguments of `jit_decode`, sharded as in `ElementsPipeline`."""
    model, size = networks.config, networks.config.latent_size
    replicated, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def array(placement: NamedSharding, dtype: DTypeLike, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placement)

    count, content = model.elements.num_elements, model.elements.content_channels
    names = ("text_encoder", "unet", "vae", *["decoder"] * model.diffusion.has_draft)
    params = {name: getattr(networks, name).shapes() for name in names}
    shared = {
        "params": jax.tree.map(lambda leaf: array(replicated, leaf.dtype, *leaf.shape), params),
        "guidance": array(replicated, jnp.float32, *guidance_weights(model.diffusion.guidance).shape),
    }
    batch = {
        "elements": ImageElements(
            array(split, jnp.float32, batch_size, count, content),
            array(split, jnp.float32, batch_size, count, 4),
            array(split, jnp.bool, batch_size, count),
        ),
        "prompt": array(split, jnp.int32, batch_size, model.text.max_length),
        "negative_prompt": array(split, jnp.int32, batch_size, model.text.max_length),
        "noise": array(split, jnp.float32, batch_size, size, size, model.vae.latent_channels),
        "preserve": None,
    }
    return shared, batch


def compile_step(model: ModelConfig, train: TrainConfig, devices: list[Any], *, quick: bool) -> Report:
    """Compile the loop's training step for these devices. Raises DoesNotFit."""
    mesh, stage = sharding.make_mesh(train.data_parallel, train.fsdp, devices), stage_of_shapes(model, train)
    model_flops, flops = step_flops(stage, train)
    traced = jit_step(stage, make_optimizer(train), train, mesh).trace(*step_arguments(stage, train, mesh))
    return _compile(
        f"training step of {_described(train)}",
        traced,
        mesh,
        train.batch_size,
        flops=flops,
        model_flops=model_flops,
        quick=quick,
    )


def _described(train: TrainConfig) -> str:
    """Name the stage, and the settings that change the size of its step."""
    batch = f"batch {train.batch_size}" + (f" in {train.accumulate} parts" if train.accumulate > 1 else "")
    if isinstance(train, DiffusionTrainConfig):
        trained = ", encoder trained" * (train.encoder != "frozen")
        return f"stage 2, {batch}, remat {train.remat}{', cached' * train.cached}{trained}"
    return f"{'the VAE' if isinstance(train, VAETrainConfig) else 'stage 1'}, {batch}"


def compile_sampler(model: ModelConfig, batch_size: int, devices: list[Any], *, quick: bool) -> Report:
    """Compile the pipeline's decoding of a batch for these devices. Raises DoesNotFit."""
    mesh, networks, steps = sharding.make_mesh(-1, 1, devices), Networks(model), model.diffusion.sample_steps
    shared, batch = sampler_arguments(networks, batch_size, mesh)
    flops = cost(lambda shared, batch: decode_elements(networks, **shared, **batch, steps=steps), shared, batch).flops
    return _compile(
        f"sampler, batch {batch_size}, {steps} guided steps",
        jit_decode(networks, mesh).trace(shared, batch, steps=steps, sampler=ddim_sample),
        mesh,
        batch_size,
        flops=flops,
        model_flops=flops,
        quick=quick,
    )


def _compile(
    program: str, traced: Any, mesh: Mesh, batch_size: int, *, flops: float, model_flops: float, quick: bool
) -> Report:
    chip = mesh.devices.flat[0].device_kind
    tpu = "TPU" in chip
    options: dict[str, Any] = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}  # they need a GPU
    if tpu:
        options = LOW_EFFORT if quick else {}
    started = time.monotonic()
    try:
        compiled = traced.lower(lowering_platforms=("tpu" if tpu else "cuda",)).compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(next(line for line in str(error).splitlines() if "RESOURCE_EXHAUSTED" in line)) from error
    seconds = time.monotonic() - started
    counted, text = compiled.cost_analysis() or {}, Program(compiled.as_text() or "")
    memory: Any = compiled.memory_analysis()
    additional = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    report = Report(
        program=program,
        chip=chip,
        mesh=dict(mesh.shape),
        batch_size=batch_size,
        compile_seconds=seconds,
        memory_available=CHIPS[chip].memory,
        memory=memory.argument_size_in_bytes + additional,
        arguments=memory.argument_size_in_bytes,
        donated=memory.alias_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        model_flops=model_flops / mesh.size,
        flops=flops / mesh.size,
        compiler_flops=counted.get("flops"),
        traffic=text.traffic(),
        messages=text.messages(),
    )
    if report.memory > report.memory_available:  # the TPU's compiler refuses by itself
        raise DoesNotFit(f"needs {gigabytes(report.memory)} of {gigabytes(report.memory_available)}")
    return report


def step_flops(stage: AnyStage, train: TrainConfig) -> tuple[float, float]:
    """Return operations of a step on all devices, with frozen networks: the model's, and including recomputation."""
    state, frozen, batch, key = step_arguments(stage, train, sharding.make_mesh(1, 1, jax.devices()[:1]))

    def loss_of(stage: AnyStage) -> Callable:
        def loss(params, frozen, batch, key):
            keys = example_keys(key, 0, batch["index"])
            return stage.loss(stage.cast(params), frozen, with_partner_example(batch), keys, jnp.int32(0))[0]

        return loss

    if not isinstance(train, DiffusionTrainConfig) or train.remat == "none":
        model = training_cost(loss_of(stage), state["params"], frozen, batch, key).flops
        return model, model
    keeping = stage_of_shapes(stage.model, dataclasses.replace(train, remat="none"))
    model = training_cost(loss_of(keeping), state["params"], frozen, batch, key).flops
    again, kept = (
        cost(jax.grad(loss_of(each)), state["params"], frozen, batch, key).flops for each in (stage, keeping)
    )
    return model, model + again - kept


def changes(train: TrainConfig, devices: int) -> Iterator[TrainConfig]:
    """Yield settings that may make a step fit, the cheapest first: recompute more (in stage 2), then split more."""
    least: dict[str, Any] = {"data_parallel": 1, "fsdp": devices}
    if isinstance(train, DiffusionTrainConfig):
        least["remat"] = "blocks"
        for remat in ("elementwise", "blocks"):
            if remat != train.remat:
                yield dataclasses.replace(train, remat=remat)
    if train.fsdp != devices:
        yield dataclasses.replace(train, **least)
    for parts in (2, 4, 8):
        if train.batch_size % (devices * train.accumulate * parts) == 0:
            yield dataclasses.replace(train, accumulate=train.accumulate * parts, **least)
