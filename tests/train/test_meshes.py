"""Training on meshes: the same run, however its arrays lie."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from configs import tiny
from elements_jax.sharding import make_mesh, shardings
from train.autoencoder import AutoencoderStage
from train.state import abstract_state, make_optimizer


def test_the_whole_state_is_covered(small, tmp_path):
    mesh = make_mesh(-1, 1)
    shapes = abstract_state(AutoencoderStage(small, tmp_path), make_optimizer(tiny.AUTOENCODER))
    laid_out = shardings(shapes, mesh)
    assert jax.tree.structure(laid_out) == jax.tree.structure(shapes)
    assert all(sharding.mesh == mesh for sharding in jax.tree.leaves(laid_out))


SCRIPT = """
import pickle, sys
import jax, jax.numpy as jnp, numpy as np
from elements_jax import sharding
from train.config import TrainConfig
from train.stage import example_keys, normal
from train.state import abstract_state, init_state, make_optimizer
from train.step import jit_step

class Regression:  # of two layers, with noise drawn for each example
    def pretrained(self):
        return {}

    def init(self, key, pretrained):
        return {"in": jax.random.normal(key, (8, 64)) / 3, "out": jnp.ones((64, 4)) / 8, "bias": jnp.zeros(4)}

    def cast(self, params):
        return params

    def loss(self, params, frozen, batch, keys):
        hidden = jnp.tanh((batch["x"] + 0.1 * normal(keys, (8,))) @ params["in"])
        return jnp.mean((hidden @ params["out"] + params["bias"] - batch["x"][:, :4]) ** 2), {}

sharding.SMALL = 64  # so that there is something to split
devices, data, fsdp, accumulate = map(int, sys.argv[1:5])
jax.config.update("jax_num_cpu_devices", devices)
train = TrainConfig(steps=9, batch_size=16, learning_rate=1e-2, warmup=1, accumulate=accumulate)
stage, optimizer, mesh = Regression(), make_optimizer(train), sharding.make_mesh(data, fsdp)
layout = sharding.shardings(abstract_state(stage, optimizer), mesh)
state = jax.jit(lambda key: init_state(stage, optimizer, key, {}), out_shardings=layout)(jax.random.key(0))
specs = {name: str(leaf.sharding.spec) for name, leaf in state["params"].items()}
step = jit_step(stage, optimizer, train, mesh)
batch = {"x": np.random.default_rng(0).random((16, 8), np.float32), "index": np.arange(16, dtype=np.int32)}
batch |= dict.fromkeys(("label_map", "object_mask"), np.zeros((16, 1, 1), np.int32))  # which this stage does not read
batch = jax.device_put(batch, sharding.over_batch(mesh))
losses = []
for _ in range(5):
    state, metrics = step(state, {}, batch, jax.random.key(1))
    losses.append(float(metrics["loss"]))
draws = jax.jit(lambda index: normal(example_keys(jax.random.key(1), 4, index), (8,)))(batch["index"])
with open(sys.argv[5], "wb") as file:
    pickle.dump((losses, np.asarray(draws), specs), file)
"""


def test_another_mesh_and_accumulation_draw_the_same_numbers_and_learn_the_same(tmp_path):
    found = []
    for devices, data, fsdp, accumulate in ((1, 1, 1, 1), (1, 1, 1, 4), (4, 2, 2, 1), (4, 2, 2, 2)):
        out = tmp_path / f"{devices}-{accumulate}.pickle"
        # Without PJRT_NPROC, collectives of many fake devices on few cores can wait for each other for ever.
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16"}
        arguments = [devices, data, fsdp, accumulate, out]
        root = Path(__file__).parents[2]  # where `python -c` finds the packages
        subprocess.run([sys.executable, "-c", SCRIPT, *map(str, arguments)], env=environment, cwd=root, check=True)
        found.append(pickle.loads(out.read_bytes()))
    expected, draws, specs = found[0]
    assert specs == {"in": str(P()), "out": str(P()), "bias": str(P())}
    assert found[2][2] == {"in": str(P(None, "fsdp")), "out": str(P("fsdp", None)), "bias": str(P())}
    for losses, draws_there, _ in found[1:]:
        np.testing.assert_array_equal(draws_there, draws)
        np.testing.assert_allclose(losses, expected, rtol=1e-4)  # sums over the batch are taken in another order
