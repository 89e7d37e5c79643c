"""Stage 2 at the paper's size: it takes 22 GB and some minutes, so it is a slow test."""

import dataclasses
import resource
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import sd15
from elements_jax.parallel.sharding import make_mesh
from train.cost.ahead_of_time import AbstractStage
from train.state import init_state, make_optimizer
from train.step import jit_step

TRAIN = dataclasses.replace(sd15.DIFFUSION, batch_size=1, random_partition=False, warmup=1, remat="blocks")


@pytest.mark.slow
def test_sd15_trains_for_a_few_steps():
    stage, optimizer = AbstractStage(sd15.MODEL, TRAIN), make_optimizer(TRAIN)
    frozen = {name: getattr(stage.networks, name).init(jax.random.key(1)) for name in stage.frozen}
    state = jax.jit(partial(init_state, optimizer))(stage.init(jax.random.key(0), {}))
    name = "mid_block.attentions.0.block.element_attention.to_k.kernel"
    before = np.asarray(state["params"][name])

    rng = np.random.default_rng(0)
    rows = np.arange(512) // 32
    batch = {
        "image": rng.integers(0, 256, (1, 512, 512, 3)).astype(np.uint8),
        "label_map": (16 * rows[:, None] + rows)[None].astype(np.int32),
        "object_mask": np.zeros((1, 512, 512), bool),
        "tokens": rng.integers(0, 49408, (1, 77)).astype(np.int32),
        "index": np.arange(1, dtype=np.int32),
    }
    batch["object_mask"][:, 100:200, 200:300] = True
    step = jit_step(stage, optimizer, TRAIN, make_mesh(-1, 1))
    losses = []
    for _ in range(3):
        state, metrics = step(state, frozen, jax.tree.map(jnp.asarray, batch), jax.random.key(2))
        losses.append(float(metrics["loss"]))
    print("losses", losses, "peak GB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
    assert np.isfinite(losses).all()
    assert int(state["step"]) == 3
    assert (np.asarray(state["params"][name]) != before).any()
    assert all(np.isfinite(value).all() for value in state["params"].values())
