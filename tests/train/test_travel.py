"""A run in one small file that resumes elsewhere."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from elements_jax.parallel import sharding
from tests.helpers.regression import Regression
from train.config import AutoencoderTrainConfig
from train.loop import fit
from train.state import abstract_state, make_optimizer
from train.travel import FILE, Travel, read

TRAIN = AutoencoderTrainConfig(
    steps=4, batch_size=8, learning_rate=1e-2, warmup=2, ema_decay=0.9, checkpoint_every=2, log_every=1, travel=1.0
)
HALF = {"rtol": 2**-11, "atol": 2**-25}
"""Errors of float16: half a unit in the last place, and half the smallest number."""
BRAIN = {"rtol": 2**-8, "atol": 1e-40}
SIZE = (48 * 64 + 64 * 48 + 48) * 2 / 1e6
"""MB of the regression's parameters as float16."""


@pytest.fixture(scope="module")
def first(records, tmp_path_factory):
    """(state, folder) of a run of four steps."""
    folder = tmp_path_factory.mktemp("first")
    return fit(Regression(None, TRAIN, folder), TRAIN, records, folder / "run"), folder / "run"


def like(train=TRAIN):
    device = sharding.replicated(sharding.make_mesh(1, 1, jax.devices()[:1]))
    shapes = abstract_state(Regression(None, train, None), make_optimizer(train))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)


def test_the_state_arrives_with_the_errors_of_its_dtypes(first):
    state, run = first
    found, place = read(run / FILE, like(), {"seed": 0})
    assert place["examples"] == 32
    assert place["settings"]["learning_rate"] == 1e-2
    assert int(found["step"]) == 4
    for part in ("params", "ema"):
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, **HALF), found[part], state[part])
    [_, [adam, _, schedule]], [_, [adam_before, _, schedule_before]] = found["opt_state"], state["opt_state"]
    assert (adam.count, schedule.count) == (adam_before.count, schedule_before.count)
    for moment in ("mu", "nu"):
        one, other = getattr(adam, moment), getattr(adam_before, moment)
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, **BRAIN), one, other)
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(one))
    jax.tree.map(lambda one, other: np.testing.assert_equal(one.dtype, other.dtype), found, state)


@pytest.mark.parametrize("moments", [True, False])
def test_a_run_resumes_from_the_file(first, records, tmp_path, moments, capsys):
    state, run = first
    allowed = (4 if moments else 3.9) * SIZE + 1e-4
    Travel(tmp_path, state, allowed).write(state, {"seed": 0, "examples": 32})
    size = (4 if moments else 2) * SIZE
    path = tmp_path / FILE
    assert path.stat().st_size / 1e6 == pytest.approx(size, abs=0.003)  # and the names
    held = f"{'with' if moments else 'without'} the optimiser's moments"
    assert f"{path} will take {size:.1f} MB at every checkpoint, {held}" in capsys.readouterr().out

    longer = dataclasses.replace(TRAIN, steps=6, learning_rate=1e-3)
    away = fit(Regression(None, longer, tmp_path), longer, records, tmp_path / "away", path)
    here = fit(Regression(None, longer, tmp_path), longer, records, tmp_path / "here", run)
    assert int(away["step"]) == 6
    [_, [adam, _, schedule]] = away["opt_state"]
    assert (int(adam.count), int(schedule.count)) == (6 if moments else 2, 6)  # no other warm-up
    # The rounding, and two AdamW steps of the learning rate each, from different moments.
    bound = 1e-4 if moments else 4e-3
    for name, value in here["params"].items():
        np.testing.assert_allclose(away["params"][name], value, rtol=2**-10, atol=bound)


def test_rejects_a_checkpoint_that_does_not_fit_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"travel: parameters and averages take 0\.0 MB, and 0\.001 MB are allowed"):
        Travel(tmp_path, like(), 0.001)


def test_numbers_beyond_float16_are_named(first, tmp_path):
    state, _ = first
    state = state | {"params": state["params"] | {"bias": jnp.full(48, 1e6)}}
    with pytest.raises(ValueError, match="not finite in float16: params/bias"):
        Travel(tmp_path, state, 1.0).write(state, {"examples": 1})
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("place", [-1, -3000, "examples", "learning_rate"])
def test_a_flipped_bit_is_noticed(first, tmp_path, place):
    """The bit is in the last array, in another one, or in the run's metadata."""
    _, run = first
    content = bytearray((run / FILE).read_bytes())
    if isinstance(place, str):
        place = re.search(rb"%s[^0-9]*(?=\d)" % place.encode(), content).end()
    content[place] ^= 1
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{tmp_path / FILE} is damaged: its checksum is wrong"):
        read(tmp_path / FILE, like(), {"seed": 0})


def test_other_files_are_refused(first, tmp_path):
    _, run = first
    with pytest.raises(ValueError, match=r"another data set.*\n  seed: expected 1, found 0"):
        read(run / FILE, like(), {"seed": 1})
    arrays = load_file(run / FILE)
    save_file(arrays, tmp_path / "plain")
    with pytest.raises(ValueError, match=r"plain: expected a file that `elements train --train.travel` wrote"):
        read(tmp_path / "plain", like(), {"seed": 0})
    del arrays["params/bias"], arrays["opt_state/1/0/mu/bias"]
    save_file(arrays, tmp_path / "part", metadata={"place": '{"examples": 1}'})
    with pytest.raises(ValueError, match=r"another model or optimiser; 2 arrays differ:\n.*mu/bias: .* found None"):
        read(tmp_path / "part", like(), {"seed": 0})
    arrays = {name: array for name, array in arrays.items() if not name.startswith("opt_state/1/0/")}
    save_file(arrays, tmp_path / "part", metadata={"place": '{"examples": 1}'})
    with pytest.raises(ValueError, match=r"another model or optimiser; 1 arrays differ:\n  params/bias: exp"):
        read(tmp_path / "part", like(), {"seed": 0})
    (tmp_path / "cut").write_bytes((run / FILE).read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut: not a safetensors file, or damaged"):
        read(tmp_path / "cut", like(), {"seed": 0})
