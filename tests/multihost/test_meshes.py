"""Training on meshes: the same run for every layout of its arrays."""

import pickle

import jax
import numpy as np
import pytest

from configs import tiny
from elements_jax.parallel import sharding
from tests.helpers.processes import ended, start
from tests.helpers.records import SMALL, write_records
from train.stages.autoencoder import AutoencoderStage
from train.state import abstract_state, make_optimizer

STEPS = 20
MESHES = [(1, 1), (8, 1), (1, 8), (2, 4)]
"""Data parallel x FSDP."""
SCRIPT = """
import pickle, sys
from dataclasses import replace
from functools import partial
from pathlib import Path
import jax
import numpy as np
from jax.sharding import AxisType
from elements_jax.parallel import sharding
from tests.helpers.regression import TRAIN, Regression
from tests.multihost.test_meshes import MESHES, STEPS
from train.input.data import dataset
from train.state import abstract_state, init_state, make_optimizer
from train.step import jit_step

class Recorded(Regression):
    # The regression, which writes down every example's draws.
    def draws(self, batch, keys):
        found = super().draws(batch, keys)
        jax.debug.callback(lambda *arrays: drawn.append(np.column_stack(arrays)), batch["index"], *found)
        return found

sharding.MIN_SHARDED_SIZE = 64  # so that there is something to split
batches = dataset(Path(sys.argv[1]), "train", batch_size=TRAIN.batch_size, seed=0, shuffle=True, tokenize=None)
batches = [next(batches) for _ in range(STEPS)]
results = {}
for shape in MESHES:
    for accumulate in (1, 2):
        drawn = []
        train, stage = replace(TRAIN, accumulate=accumulate), Recorded(None, None, None)
        devices = jax.devices()[: shape[0] * shape[1]]
        mesh = jax.make_mesh(shape, ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices)
        optimizer = make_optimizer(train)
        layout = sharding.shardings(abstract_state(stage, optimizer), mesh)
        state = jax.jit(partial(init_state, optimizer), out_shardings=layout)(stage.init(jax.random.key(0), {}))
        split = {name: leaf.sharding.shard_shape(leaf.shape) for name, leaf in state["params"].items()}
        step = jit_step(stage, optimizer, train, mesh)
        for batch in batches:
            batch = {name: jax.device_put(array, sharding.batch_sharding(mesh)) for name, array in batch.items()}
            state, _ = step(state, stage.frozen, batch, jax.random.key(1))
            jax.block_until_ready(state)
        jax.effects_barrier()
        draws = np.concatenate(drawn)
        results[shape, accumulate] = jax.device_get(state["params"]), draws[np.argsort(draws[:, 0])], split
Path(sys.argv[2]).write_bytes(pickle.dumps(results))
"""


def test_the_whole_state_is_covered(tmp_path):
    mesh = sharding.make_mesh(-1, 1)
    shapes = abstract_state(AutoencoderStage(SMALL, tiny.AUTOENCODER, tmp_path), make_optimizer(tiny.AUTOENCODER))
    laid_out = sharding.shardings(shapes, mesh)
    assert jax.tree.structure(laid_out) == jax.tree.structure(shapes)
    assert all(sharding.mesh == mesh for sharding in jax.tree.leaves(laid_out))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(mesh, parts) -> (parameters after 20 steps, draws of its examples, shapes on one device)."""
    folder = tmp_path_factory.mktemp("meshes")
    write_records(folder)
    code, _, errors = ended(start("-c", SCRIPT, folder, folder / "results", devices=8))
    assert code == 0, errors
    return pickle.loads((folder / "results").read_bytes())


def test_meshes_split_batch_and_parameters(results):
    assert results[(8, 1), 1][2] == {"in": (48, 64), "out": (64, 48), "bias": (48,)}
    assert results[(1, 8), 1][2] == {"in": (48, 8), "out": (8, 48), "bias": (48,)}
    assert results[(2, 4), 1][2] == {"in": (48, 16), "out": (16, 48), "bias": (48,)}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("mesh", MESHES)
def test_every_mesh_learns_and_draws_the_same(results, mesh, accumulate):
    """Draws are equal to the bit; parameters, of at most 0.5, to 1e-6, since the batch is summed in another order."""
    expected, draws, _ = results[(1, 1), 1]
    params, drawn, _ = results[mesh, accumulate]
    assert draws.shape == (STEPS * 16, 1 + 48 + 1 + 2 + 4)  # each example's place, noise, timestep and dropout
    np.testing.assert_array_equal(draws[:, 0], np.arange(len(draws)))
    np.testing.assert_array_equal(drawn, draws)
    jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, rtol=0, atol=1e-6), params, expected)
