"""Seconds until the sampler and the training step are ready: traced and lowered, then compiled, or read from a cache.

    python tests/benchmarks/compile_time.py --presets tiny

Each figure is a fresh process's. The cache is JAX's own (JAX_COMPILATION_CACHE_DIR), filled by the process before.
Programs are compiled from shapes alone: no parameter is made.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from elements_jax.cpu import prefer_own_convolutions
from elements_jax.elements import ImageElements
from elements_jax.networks import Networks
from elements_jax.pipeline import decode_elements
from elements_jax.sharding import make_mesh
from train.config import DiffusionTrainConfig
from train.diffusion import DiffusionStage
from train.state import abstract_state, make_optimizer
from train.step import jit_step

PROGRAMS = ("sampler", "training step")


class StageOfShapes(DiffusionStage):
    """Stage 2 without a model folder: its frozen networks are shapes."""

    def __init__(self, model, train: DiffusionTrainConfig):
        self.model, self.train, self.networks = model, train, Networks(model)
        self.frozen = shapes(self.networks, ["vae", "encoder", "text_encoder"])
        self.empty_prompt = np.zeros(model.text.max_length, np.int32)


def shapes(networks: Networks, names: list[str]) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Those of the parameters of the named networks."""
    return {name: getattr(networks, name).shapes() for name in names}


def sampler(config, train: DiffusionTrainConfig) -> tuple:
    """`ElementsPipeline.decode`'s program for one picture, with the preset's steps, and its arguments."""
    count, size = config.elements.num_elements, config.latent_size
    elements = ImageElements(
        jax.ShapeDtypeStruct((1, count, config.elements.content_channels), jnp.float32),
        jax.ShapeDtypeStruct((1, count, 4), jnp.float32),
        jax.ShapeDtypeStruct((1, count), bool),
    )
    networks = Networks(config)
    arguments = (
        shapes(networks, ["text_encoder", "unet", "vae"]),
        elements,
        jax.ShapeDtypeStruct((1, config.text.max_length), jnp.int32),
        jax.ShapeDtypeStruct((config.text.max_length,), jnp.int32),
        jax.ShapeDtypeStruct((1, size, size, config.vae.latent_channels), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.float32),
    )
    return jax.jit(partial(decode_elements, networks, steps=config.diffusion.sample_steps)), arguments


def training_step(config, train: DiffusionTrainConfig) -> tuple:
    """The loop's step of stage 2 at the preset's batch size, on one device, and its arguments."""
    stage, optimizer = StageOfShapes(config, train), make_optimizer(train)
    size = (train.batch_size, config.elements.image_size, config.elements.image_size)
    batch = {
        "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
        "label_map": jax.ShapeDtypeStruct(size, jnp.int32),
        "object_mask": jax.ShapeDtypeStruct(size, bool),
        "tokens": jax.ShapeDtypeStruct((train.batch_size, config.text.max_length), jnp.int32),
        "index": jax.ShapeDtypeStruct((train.batch_size,), jnp.int32),
    }
    step = jit_step(stage, optimizer, train, make_mesh(1, 1))
    return step, (abstract_state(stage, optimizer), stage.frozen, batch, jax.eval_shape(lambda: jax.random.key(0)))


def measure(preset: str, program: str) -> dict[str, float]:
    """Seconds to lower and to compile in this process."""
    prefer_own_convolutions()
    module = importlib.import_module(f"configs.{preset}")
    function, arguments = {"sampler": sampler, "training step": training_step}[program](module.MODEL, module.DIFFUSION)
    ticks = [time.perf_counter()]
    lowered = function.lower(*arguments)
    ticks.append(time.perf_counter())
    lowered.compile()
    ticks.append(time.perf_counter())
    return dict(zip(("lower", "compile"), np.diff(ticks), strict=True))


def main(presets: tuple[Literal["tiny", "sd15"], ...] = ("tiny", "sd15")) -> None:
    """Print a line for each program.

    Args:
        presets: Whose programs.
    """
    print(f"{'':26} {'lower':>9} {'compile':>9}   from the cache: {'lower':>9} {'compile':>9}")
    for preset in presets:
        for program in PROGRAMS:
            with tempfile.TemporaryDirectory() as cache:
                environment = os.environ | {
                    "JAX_COMPILATION_CACHE_DIR": cache,
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                }
                command = [sys.executable, __file__, "--one", preset, program]
                cold, cached = (
                    json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
                    for _ in range(2)
                )
            print(
                f"{preset + ', ' + program:26} {cold['lower']:7.1f} s {cold['compile']:7.1f} s"
                f"   {'':15} {cached['lower']:7.1f} s {cached['compile']:7.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        tyro.cli(main)
