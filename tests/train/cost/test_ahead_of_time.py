"""Compiling ahead of time, for absent TPUs."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from elements_jax.cli.compile import PROGRAMS, main
from elements_jax.parallel.sharding import make_mesh
from tests.helpers.records import SMALL
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, TrainConfig, VAETrainConfig
from train.cost.ahead_of_time import changes, stage_of_shapes, step_arguments, step_flops
from train.cost.chips import CHIPS
from train.cost.hlo import Messages
from train.cost.roofline import Report
from train.state import make_optimizer
from train.step import jit_step

ROOT = Path(__file__).parents[3]
# `make test` puts it there: next to the other packages it would look for TPUs at each start.
LIBTPU = Path(sys.prefix, "libtpu")


def run_with_tpu_compiler(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python with the TPU's compiler; skip if it is not installed."""
    if not LIBTPU.is_dir() and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu, the TPU's compiler, is not installed")
    variables = os.environ | {"PYTHONPATH": f"{ROOT}:{LIBTPU}", "JAX_PLATFORMS": "cpu"} | environment
    return subprocess.run(
        [sys.executable, *arguments], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
    )


SETUP = """
import dataclasses, re, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 4)
from elements_jax.config import ElementsConfig
from elements_jax.parallel.sharding import make_mesh
from tests.helpers.records import SMALL
from train.cost.ahead_of_time import AbstractStage, compile_step, step_arguments, topology_devices
from train.config import DiffusionTrainConfig
from train.state import make_optimizer
from train.step import jit_step

# 256 pixels attend to each other in the latent image, for which there is the TPU's kernel.
elements = dataclasses.replace(SMALL.elements, image_size=32)
unet = dataclasses.replace(SMALL.unet, block_out_channels=(64,))
model = dataclasses.replace(SMALL, elements=elements, unet=unet, dtype="bfloat16")
train = DiffusionTrainConfig(steps=1, batch_size=16, learning_rate=1.0, accumulate=2, data_parallel=2, fsdp=2)
slice_ = topology_devices("v5e:2x2")
"""

LOWERED_TWICE = r"""
stage, texts = AbstractStage(model, train), []
for devices in (jax.devices(), slice_):
    mesh = make_mesh(2, 2, devices)
    traced = jit_step(stage, make_optimizer(train), train, mesh).trace(*step_arguments(stage, train, mesh))
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    # A kernel's code comes with the lines of Python that it was traced from.
    texts.append(re.sub(r'\\22body\\22: \\22[^\\]*', "kernel's code", text))
print(texts[0].count("kernel's code"), texts[0].count("all_gather"), texts[0] == texts[1])
"""

COMPILED = """
report = compile_step(model, train, slice_, quick=True)
print(report)
report.save(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def lowered_and_compiled(tmp_path_factory) -> tuple[list[str], str, dict]:
    """What one process finds out: (words about the lowered programs, printed report, saved report)."""
    path = tmp_path_factory.mktemp("compiled") / "report.json"
    done = run_with_tpu_compiler("-c", SETUP + LOWERED_TWICE + COMPILED, str(path), PJRT_NPROC="16")
    assert done.returncode == 0, done.stderr
    first, printed = done.stdout.split("\n", 1)
    return first.split(), printed, json.loads(path.read_text())


def test_program_for_a_topology_equals_the_one_run_on_a_mesh(lowered_and_compiled):
    kernels, gathers, equal = lowered_and_compiled[0]
    assert int(kernels) > 0
    assert int(gathers) > 0
    assert equal == "True"


def test_a_step_is_compiled_for_a_slice_and_reported(lowered_and_compiled):
    _, printed, report = lowered_and_compiled
    assert printed.startswith("training step of stage 2, batch 16 in 2 parts, remat none\n")
    assert "4 x TPU v5 lite, mesh data 2 x fsdp 2, 4 images each" in printed
    assert report["donated"] > 0.7 * report["arguments"]  # the state is overwritten; not frozen networks and batch
    assert report["memory"] == pytest.approx(report["arguments"] + report["temporary"], rel=0.01)
    assert report["flops"] == report["model_flops"] > 0
    assert report["messages"].keys() >= {"all-gather", "all-reduce"}
    assert report["least_time"] == max(report["times"].values())


def run_with_gpu_compiler(*arguments: str) -> str:
    """Run `elements compile` for an absent GPU and return what it prints; skip if the compiler is not installed."""
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        pytest.skip("jax-cuda13-pjrt and jax-cuda13-plugin, the GPU's compiler, are not installed")
    done = subprocess.run(
        [sys.executable, "-m", "elements_jax.cli", "compile", *arguments, "--topology", "h100:1"],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_is_compiled_for_one_gpu(program):
    printed = run_with_gpu_compiler("tiny", "--program", program, "--train.batch-size", "2")
    assert "1 x NVIDIA H100 80GB HBM3, mesh data 1 x fsdp 1, 2 images each" in printed
    assert re.search(r"traffic     [\d.]*[1-9]", printed)


def test_a_sampler_decodes_a_single_image():
    """Unlike a step of stage 2, in which images exchange partitions."""
    with pytest.raises(ValueError, match=r"--topology v9:2x2"):
        main(["tiny", "--program", "sample", "--train.batch-size", "1", "--topology", "v9:2x2"])
    with pytest.raises(ValueError, match=r"--train\.batch-size must be 2 or more"):
        main(["tiny", "--train.batch-size", "1", "--topology", "v9:2x2"])


def test_a_preset_without_a_program_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["tiny_ae", "--topology", "h100:1"])
    assert "tiny_ae has no program diffusion" in capsys.readouterr().err


SIZES = {"steps": 1, "batch_size": 2, "learning_rate": 1}


@pytest.mark.parametrize(
    "train",
    [
        VAETrainConfig(**SIZES, adversarial_weight=0.5),
        AutoencoderTrainConfig(**SIZES, element_dropout=1.0),
        DiffusionTrainConfig(**SIZES, encoder="joint", remat="blocks"),
    ],
    ids=["vae", "stage 1", "stage 2"],
)
def test_the_step_of_every_stage_is_traced_from_shapes(train: TrainConfig):
    stage, mesh = stage_of_shapes(SMALL, train), make_mesh(1, 1, jax.devices()[:1])
    traced = jit_step(stage, make_optimizer(train), train, mesh).trace(*step_arguments(stage, train, mesh))
    assert traced.out_info[1]["loss"].shape == ()
    # Each array of the gradient is laid out like the state; otherwise a GPU transposes the state in every step.
    assert str(traced.jaxpr).count("layout_constraint[") == len(jax.tree.leaves(stage.shapes()))
    model, executed = step_flops(stage, train)
    assert executed >= model > 0
    assert (executed > model) == (getattr(train, "remat", "none") != "none")


def test_an_unknown_topology_is_one_clear_error():
    done = run_with_tpu_compiler(*["-m", "elements_jax.cli", "compile", "tiny", "--topology", "v9:2x2"])
    assert done.returncode == 1
    assert "error: --topology v9:2x2: expected one like v4:2x2x2" in done.stderr


REPORT = Report(
    program="training step",
    chip="TPU v5 lite",
    mesh={"data": 2, "fsdp": 8},
    batch_size=64,
    compile_seconds=100.0,
    memory_available=16e9,
    memory=9e9,
    arguments=2e9,
    donated=1.8e9,
    temporary=7e9,
    model_flops=10e12,
    flops=12e12,
    compiler_flops=None,
    traffic=CHIPS["TPU v5 lite"].bandwidth * 0.08,
    messages={"all-gather": Messages(40, 2e9), "reduce-scatter": Messages(40, 4e9)},
)


def test_a_step_takes_as_long_as_its_slowest_resource():
    assert REPORT.times == {
        "arithmetic": pytest.approx(12 / 197),
        "memory traffic": pytest.approx(0.08),
        "messages": pytest.approx(6e9 / 200e9),
    }
    assert REPORT.least_time == pytest.approx(0.08)
    assert REPORT.utilisation == pytest.approx(10 / 197 / 0.08)
    assert "bound by memory traffic: at most 800 images/s, 63% of the peak" in str(REPORT)


def test_a_step_that_does_not_fit_is_retried_smaller():
    train = DiffusionTrainConfig(steps=1, batch_size=64, learning_rate=1, data_parallel=2, fsdp=8)
    tried = list(changes(train, 16))
    assert [(t.remat, t.fsdp, t.accumulate) for t in tried] == [
        ("elementwise", 8, 1),
        ("blocks", 8, 1),
        ("blocks", 16, 1),
        ("blocks", 16, 2),
        ("blocks", 16, 4),
    ]
    assert next(changes(tried[-1], 16)).remat == "elementwise"
