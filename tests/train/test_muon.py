"""Muon against a plain NumPy oracle, and its place in a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elements_jax.parallel import sharding
from train.config import AutoencoderTrainConfig
from train.state import MUON_RMS, init_state, make_optimizer
from train.travel import FILE, Travel, read

RATE = 1e-2
TRAIN = AutoencoderTrainConfig(
    steps=4, batch_size=1, optimizer="muon", learning_rate=RATE, warmup=1, weight_decay=0.0, clip_norm=1e9
)
SHAPES = {"dense.kernel": (6, 10), "conv.kernel": (3, 3, 2, 5), "dense.bias": (10,), "token.embedding": (7, 4)}


@pytest.fixture
def params() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {name: jnp.float32(rng.normal(size=shape)) for name, shape in SHAPES.items()}


def gradients(count: int) -> list[dict[str, jax.Array]]:
    rng = np.random.default_rng(1)
    return [{name: jnp.float32(rng.normal(size=shape)) for name, shape in SHAPES.items()} for _ in range(count)]


def run(train: AutoencoderTrainConfig, params: dict, count: int, **clock: jax.Array):
    """Return the updates of the last of some steps, and the state after them."""
    optimizer = make_optimizer(train)
    state, updates = optimizer.init(params), {}
    for gradient in gradients(count):
        updates, state = optimizer.update(gradient, state, params, **clock)
    return updates, state


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    """Return the quintic Newton-Schulz iteration of Jordan et al. (2024)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / np.linalg.norm(wide)
    for _ in range(5):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def expected_of(seen: list[np.ndarray]) -> np.ndarray:
    """Return the update of a matrix after these gradients, with Nesterov's momentum and without bias."""
    mean = sum(0.05 * 0.95 ** (len(seen) - 1 - i) * each for i, each in enumerate(seen))
    ahead = 0.95 * mean / (1 - 0.95 ** (len(seen) + 1)) + 0.05 * seen[-1] / (1 - 0.95 ** len(seen))
    return -RATE * MUON_RMS * np.sqrt(max(ahead.shape)) * orthogonalized(ahead)


def test_kernels_move_by_the_orthogonalized_momentum(params):
    updates, _ = run(TRAIN, params, 3)
    for name in ("dense.kernel", "conv.kernel"):
        matrices = [np.float64(each[name]).reshape(-1, SHAPES[name][-1]) for each in gradients(3)]
        expected = expected_of(matrices)
        np.testing.assert_allclose(updates[name].reshape(expected.shape), expected, atol=1e-5)
        assert np.sqrt(np.mean(expected**2)) == pytest.approx(RATE * MUON_RMS, rel=0.3)


def test_the_rest_moves_as_under_adam(params):
    updates, _ = run(TRAIN, params, 3)
    adam = optax.scale_by_adam(*TRAIN.betas, nesterov=True)
    state, expected = adam.init(params), {}
    for gradient in gradients(3):
        expected, state = adam.update(gradient, state)
    for name in ("dense.bias", "token.embedding"):
        np.testing.assert_allclose(updates[name], -RATE * expected[name], rtol=1e-5)


def test_the_clock_changes_only_the_rate(params):
    by_steps, steps = run(TRAIN, params, 3)
    by_clock, clock = run(dataclasses.replace(TRAIN, minutes=1.0), params, 3, elapsed=jnp.float32(0.3))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), by_steps, by_clock)
    jax.tree.map(np.testing.assert_array_equal, steps, clock)


@pytest.mark.parametrize("moments", [True, False])
def test_its_state_travels(params, tmp_path, moments):
    """Without moments, the optimiser starts anew. Its coefficients are constants, and must not become zero."""
    _, opt_state = run(TRAIN, params, 3)
    state = init_state(make_optimizer(TRAIN), params) | {"opt_state": opt_state}
    Travel(tmp_path, state, 1.0 if moments else 0.001).write(state, {"seed": 0, "examples": 3})
    device = sharding.replicated(sharding.make_mesh(1, 1, jax.devices()[:1]))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), state)
    found, _ = read(tmp_path / FILE, like, {"seed": 0})
    gradient = gradients(4)[3]
    updates, _ = make_optimizer(TRAIN).update(gradient, found["opt_state"], params)
    seen = gradients(4) if moments else [gradient]
    expected = expected_of([np.float64(each["dense.kernel"]) for each in seen])
    np.testing.assert_allclose(updates["dense.kernel"], expected, atol=RATE / 50)
