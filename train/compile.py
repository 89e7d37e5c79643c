"""`elements compile PRESET --topology v5e:4x4`: the training step compiled for accelerators that are not here.

What is compiled is what runs: the loop's own step, from shapes alone. The compiler says how much memory a device needs.
How long a step takes is bounded from below by its arithmetic, its memory traffic and its messages, each at the rate of
the chip's data sheet (a roofline; Williams et al. 2009).
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import Mesh

from elements_jax import sharding
from elements_jax.config import ModelConfig
from elements_jax.files import new_file
from elements_jax.networks import Networks
from train.chips import CHIPS, H100
from train.cli import parse_preset
from train.config import DiffusionTrainConfig
from train.diffusion import DiffusionStage
from train.dropout import pair
from train.flops import cost
from train.hlo import Messages, Program
from train.stage import Tree, example_keys
from train.state import abstract_state, make_optimizer
from train.step import jit_step

QUICK = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
"""Options of the TPU's compiler for five to seventeen times less waiting; the programs are much alike."""


SINGLE_HOST = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
"""What libtpu would ask a cloud machine's metadata for, which is not one."""


class StageOfShapes(DiffusionStage):
    """Stage 2 without a model folder: its frozen networks are shapes, which compiling needs no more than."""

    def __init__(self, model: ModelConfig, train: DiffusionTrainConfig):
        self.model, self.train, self.networks = model, train, Networks(model)
        networks = {name: getattr(self.networks, name) for name in ("vae", "encoder", "text_encoder")}
        self.frozen = {name: jax.eval_shape(network.cast, network.shapes()) for name, network in networks.items()}
        self.empty_prompt = np.zeros(model.text.max_length, np.int32)


@dataclass(frozen=True)
class Report:
    """What one device does in a step. Sizes in bytes, times in seconds."""

    chip: str
    devices: int
    mesh: dict[str, int]
    batch_size: int
    accumulate: int
    remat: str
    compile_seconds: float
    memory_available: float
    memory: float
    """Most that is needed at once: state, frozen networks, batch, and temporary arrays."""
    arguments: float
    donated: float
    """Of the arguments, what the results are written over: the state, if nothing is wrong."""
    temporary: float
    model_flops: float
    """Of products and convolutions, each counted once."""
    flops: float
    """With what the gradient computes again."""
    compiler_flops: float | None
    """The compiler's own count, which takes every loop for one turn and knows nothing of kernels."""
    traffic: float
    """Between the chip and its memory, as the compiler counts operands and results, with all turns of loops."""
    messages: dict[str, Messages]

    @property
    def times(self) -> dict[str, float]:
        """The least time that each resource takes."""
        chip = CHIPS[self.chip]
        return {
            "arithmetic": self.flops / chip.flops,
            "memory traffic": self.traffic / chip.bandwidth,
            "messages": sum(messages.sent for messages in self.messages.values()) / chip.interconnect,
        }

    @property
    def step_time(self) -> float:
        """No step can be faster, even if all three overlap fully."""
        return max(self.times.values())

    @property
    def utilisation(self) -> float:
        """Model FLOP utilisation (Chowdhery et al. 2022) at `step_time`."""
        return self.model_flops / CHIPS[self.chip].flops / self.step_time

    def __str__(self) -> str:
        times = {name: f"{1e3 * seconds:.1f} ms" for name, seconds in self.times.items()}
        sent = sum(messages.sent for messages in self.messages.values())
        kinds = ", ".join(f"{kind} {found.count}: {_gb(found.sent)}" for kind, found in self.messages.items())
        slowest = max(self.times, key=lambda name: self.times[name])
        mesh = " x ".join(f"{name} {size}" for name, size in self.mesh.items())
        per_device = self.batch_size / self.devices
        return "\n".join(
            [
                f"{self.devices} x {self.chip}, mesh {mesh}, batch {self.batch_size} ({per_device:g} a device"
                + (f" in {self.accumulate} parts" if self.accumulate > 1 else "")
                + f"), remat {self.remat}; compiled in {self.compile_seconds:.0f} s",
                f"  memory      {_gb(self.memory)} of {_gb(self.memory_available)}: arguments {_gb(self.arguments)} "
                f"({_gb(self.donated)} of them written over), temporary {_gb(self.temporary)}",
                f"  arithmetic  {self.flops / 1e12:.2f} TFLOP, of which the model {self.model_flops / 1e12:.2f} "
                f"(the compiler counts {(self.compiler_flops or 0) / 1e12:.2f}): {times['arithmetic']}",
                f"  traffic     {_gb(self.traffic)}: {times['memory traffic']}",
                f"  messages    {_gb(sent)} sent ({kinds or 'none'}): {times['messages']}",
                f"  step        at least {1e3 * self.step_time:.1f} ms, bound by {slowest}: at most "
                f"{self.batch_size / self.step_time:.0f} images/s and {self.utilisation:.0%} of the peak",
            ]
        )

    def save(self, path: Path) -> None:
        """Write it as JSON, with what follows from it."""
        value = dataclasses.asdict(self) | {
            "times": self.times,
            "step_time": self.step_time,
            "utilisation": self.utilisation,
        }
        with new_file(path) as file:
            file.write((json.dumps(value, indent=2) + "\n").encode())


class DoesNotFit(Exception):
    """The program needs more memory than a device has; the message says how much."""


def topology_devices(name: str) -> list[Any]:
    """The devices of a slice that is not here: `v4:2x2x2`, `v5e:4x4`, `v5p:2x2x2`, `v6e:4x4`, or `h100:8`.

    Raises ValueError for a name that the compiler does not know, and where the compiler is not installed.
    """
    kind, _, shape = name.partition(":")
    try:
        if kind == "h100":
            described = {"target_config": H100, "topology": f"1x1x{shape}"}
            return topologies.get_topology_desc("h100", "cuda", **described).devices
        return topologies.get_topology_desc(name, "tpu").devices
    except Exception as error:  # of the plugin or its absence: they share no class
        raise ValueError(
            f"--topology {name}: expected one like v4:2x2x2, v5e:4x4, v5p:2x2x2, v6e:4x4 or h100:8, and its compiler "
            f"installed (`pip install libtpu`, or jax-cuda13-pjrt and jax-cuda13-plugin): {error}"
        ) from error


def step_arguments(stage: DiffusionStage, train: DiffusionTrainConfig, mesh: Mesh) -> tuple[Tree, ...]:
    """Shapes of (state, frozen, batch, key), laid out as the loop lays them."""
    state = abstract_state(stage, make_optimizer(train))
    size = (train.batch_size, stage.model.elements.image_size, stage.model.elements.image_size)
    batch = {
        "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
        "label_map": jax.ShapeDtypeStruct(size, jnp.int32),
        "object_mask": jax.ShapeDtypeStruct(size, jnp.bool),
        "tokens": jax.ShapeDtypeStruct((train.batch_size, stage.model.text.max_length), jnp.int32),
        "index": jax.ShapeDtypeStruct((train.batch_size,), jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))

    def laid(tree: Tree, lie: Any) -> Tree:
        return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), tree, lie)

    def all_alike(tree: Tree, at: jax.sharding.NamedSharding) -> Tree:
        return laid(tree, jax.tree.map(lambda _: at, tree))

    replicated = sharding.replicated(mesh)
    return (
        laid(state, sharding.shardings(state, mesh)),
        all_alike(stage.frozen, replicated),
        all_alike(batch, sharding.over_batch(mesh)),
        all_alike(key, replicated),
    )


def lower_step(stage: DiffusionStage, train: DiffusionTrainConfig, mesh: Mesh) -> jax.stages.Lowered:
    """The loop's step, traced for the platform of the mesh's devices."""
    platform = "tpu" if "TPU" in mesh.devices.flat[0].device_kind else "cuda"
    traced = jit_step(stage, make_optimizer(train), train, mesh).trace(*step_arguments(stage, train, mesh))
    return traced.lower(lowering_platforms=(platform,))


def compile_step(model: ModelConfig, train: DiffusionTrainConfig, devices: list[Any], *, quick: bool) -> Report:
    """Compile the step for these devices. Raises DoesNotFit."""
    mesh = sharding.make_mesh(train.data_parallel, train.fsdp, devices)
    chip = devices[0].device_kind
    options: dict[str, Any] = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}  # they need a GPU
    if "TPU" in chip:
        options = QUICK if quick else {}
    started = time.monotonic()
    try:
        compiled = lower_step(StageOfShapes(model, train), train, mesh).compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(next(line for line in str(error).splitlines() if "RESOURCE_EXHAUSTED" in line)) from error
    counted, program = compiled.cost_analysis() or {}, Program(compiled.as_text() or "")
    memory: Any = compiled.memory_analysis()
    report = Report(
        chip=chip,
        devices=mesh.size,
        mesh=dict(mesh.shape),
        batch_size=train.batch_size,
        accumulate=train.accumulate,
        remat=train.remat,
        compile_seconds=time.monotonic() - started,
        memory_available=CHIPS[chip].memory,
        memory=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        arguments=memory.argument_size_in_bytes,
        donated=memory.alias_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        model_flops=gradient_flops(model, dataclasses.replace(train, remat="none")) / mesh.size,
        flops=gradient_flops(model, train) / mesh.size,
        compiler_flops=counted.get("flops"),
        traffic=counted.get("bytes accessed", 0.0) + program.repeated_bytes(),
        messages=program.messages(),
    )
    if report.memory > report.memory_available:  # the TPU's compiler refuses by itself
        raise DoesNotFit(f"needs {_gb(report.memory)} of {_gb(report.memory_available)}")
    return report


def gradient_flops(model: ModelConfig, train: DiffusionTrainConfig) -> float:
    """Operations of the loss and its gradient over the whole batch, frozen networks included."""
    stage = StageOfShapes(model, train)

    def gradient(state, frozen, batch, key):
        keys = example_keys(key, 0, batch["index"])
        return jax.grad(stage.loss, has_aux=True)(stage.cast(state["params"]), frozen, pair(batch), keys)

    return cost(gradient, *step_arguments(stage, train, sharding.make_mesh(1, 1, jax.devices()[:1]))).flops


def changes(train: DiffusionTrainConfig, devices: int) -> Iterator[DiffusionTrainConfig]:
    """What may make a step fit that does not, the cheapest first: computing again, then splitting more."""
    for remat in ("elementwise", "blocks"):
        if remat != train.remat:
            yield dataclasses.replace(train, remat=remat)
    if train.fsdp != devices:
        yield dataclasses.replace(train, remat="blocks", data_parallel=1, fsdp=devices)
    for parts in (2, 4, 8):
        if train.batch_size % (devices * train.accumulate * parts) == 0:
            yield dataclasses.replace(
                train, remat="blocks", data_parallel=1, fsdp=devices, accumulate=train.accumulate * parts
            )


@dataclass(frozen=True)
class Job:
    """What to compile, and for what."""

    topology: str
    """The slice, by its chips and how they are laid out: v4:2x2x2, v5e:4x4, v5p:2x2x2, v6e:4x4; or h100:8."""
    train: DiffusionTrainConfig
    """The mesh is here, and all that makes a step larger or smaller: batch_size, accumulate, remat."""
    config: ModelConfig
    quick: bool = True
    """Ask the TPU's compiler for less effort: minutes instead of tens of minutes."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file for the report."""


def main(argv: Sequence[str]) -> int:
    """Parse the command line, compile and report. Exit code 1 where the step fits in no way that was tried."""
    for name, value in SINGLE_HOST.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")  # the compiler needs no chip, and should look for none
    preset, settings = parse_preset("elements compile", "Compile the training step of stage 2.", argv)
    job = tyro.cli(
        Job,
        prog=f"elements compile {preset.__name__.removeprefix('configs.')}",
        description="Compile the training step of stage 2 for accelerators that are not here, and say what it needs.",
        args=settings,
        default=Job(topology=tyro.MISSING, train=preset.DIFFUSION, config=preset.MODEL),
    )
    try:
        devices = topology_devices(job.topology)
        tried, report = job.train, None
        for train in (job.train, *changes(job.train, len(devices))):
            tried = train
            try:
                report = compile_step(job.config, train, devices, quick=job.quick)
                break
            except DoesNotFit as error:
                print(f"{_knobs(train)} does not fit: {error}", flush=True)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if report is None:
        print(f"Nothing that was tried fits: take a smaller batch than {job.train.batch_size}, or more devices.")
        return 1
    if tried != job.train:
        print(f"{_knobs(tried)} fits:")
    print(report)
    if job.report is not None:
        report.save(job.report)
    return 0


def _knobs(train: DiffusionTrainConfig) -> str:
    return (
        f"--train.data-parallel {train.data_parallel} --train.fsdp {train.fsdp} --train.accumulate {train.accumulate} "
        f"--train.remat {train.remat}"
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
