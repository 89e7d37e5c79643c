"""Training by the clock. The tests set the time: every reading advances it."""

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.parallel import hosts
from tests.helpers.regression import Regression
from train import clock, loop
from train.clock import Clock
from train.config import AutoencoderTrainConfig
from train.log import Log
from train.loop import fit
from train.state import learning_rate, learning_rate_by_clock, make_optimizer

TRAIN = AutoencoderTrainConfig(
    steps=1,
    batch_size=8,
    learning_rate=1e-2,
    warmup=3,
    minutes=2.0,
    ema_decay=0.9,
    checkpoint_every=1000,
    sample_every=1000,
    log_every=10,
)


@pytest.fixture
def seconds(monkeypatch):
    """The time; every reading advances it by a second."""
    ticks = itertools.count(1000)
    told = SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr(clock, "time", told)
    monkeypatch.setattr(loop, "time", told)
    return told.monotonic


@pytest.fixture
def steps(monkeypatch):
    """The metrics returned by the steps of a run."""
    figures, take_in = [], Log.step

    def step(log, number, metrics):
        figures.append({"step": number} | metrics)
        take_in(log, number, metrics)

    monkeypatch.setattr(Log, "step", step)
    return figures


def rates(train: AutoencoderTrainConfig, times: list[float], step: int = 1000) -> list[float]:
    return [float(learning_rate_by_clock(train)(jnp.int32(step), jnp.float32(time))) for time in times]


def test_schedules_over_the_time():
    train = dataclasses.replace(TRAIN, learning_rate=1.0, final_fraction=0.2, decay_fraction=0.25)
    times = [0.0, 0.5, 0.75, 0.875, 1.0]
    expected = {"constant": [1] * 5, "cosine": [1, 0.6, 0.317157, 0.230448, 0.2], "wsd": [1, 1, 1, 0.6, 0.2]}
    for schedule, values in expected.items():
        found = rates(dataclasses.replace(train, schedule=schedule), times)
        np.testing.assert_allclose(found, values, rtol=1e-5)
    assert rates(dataclasses.replace(train, warmup=10), [0.3], step=4) == pytest.approx([0.4])


def test_wsd_over_steps():
    train = dataclasses.replace(
        TRAIN, minutes=None, steps=100, warmup=10, learning_rate=1.0, schedule="wsd", final_fraction=0.2
    )
    found = [float(learning_rate(train)(step)) for step in (0, 5, 10, 79, 80, 90, 100)]
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 1, 0.6, 0.2], rtol=1e-5)


def test_optimiser_is_adamw_with_another_schedule_and_same_state():
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), "b": jnp.asarray(rng.normal(size=5), jnp.float32)}
    by_clock, by_steps = make_optimizer(TRAIN), make_optimizer(dataclasses.replace(TRAIN, minutes=None))
    states = [by_clock.init(params), by_steps.init(params)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for _ in range(5):
        gradient = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
        one, states[0] = by_clock.update(gradient, states[0], params, elapsed=jnp.float32(0.3))
        other, states[1] = by_steps.update(gradient, states[1], params)
        jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-6), one, other)
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_run_ends_in_time_and_a_later_one_resumes(records, tmp_path, seconds, steps, capsys):
    train = dataclasses.replace(TRAIN, schedule="wsd", final_fraction=0.0, decay_fraction=0.5)
    began = seconds()
    state = fit(Regression(None, train, tmp_path), train, records, tmp_path / "run", began=began)
    assert 100 < seconds() - began <= 120  # of two minutes
    count = int(state["step"])
    assert [figures["step"] for figures in steps] == list(range(1, count + 1))
    elapsed = np.array([figures["elapsed"] for figures in steps])
    assert elapsed[0] < 0.05
    assert (np.diff(elapsed) >= 0).all()
    assert elapsed[-1] == 1
    found = [float(figures["learning_rate"]) for figures in steps]
    expected = [rates(train, [share], step)[0] for step, share in enumerate(elapsed)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    assert found[-1] == 0
    # Samples and a checkpoint after a quarter of the time, to measure their duration, and at the end.
    saved = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").glob("[0-9]*"))
    assert saved == sorted(int(path.stem) for path in (tmp_path / "run" / "samples").iterdir())
    assert len(saved) == 2
    assert elapsed[saved[0] - 1] == pytest.approx(0.25, abs=0.1)
    assert saved[1] == count
    exported = np.load(tmp_path / "exported.npz")
    np.testing.assert_array_equal(exported["bias"], state["ema"]["bias"])
    assert "% of 2 minutes" in capsys.readouterr().out

    began = seconds()
    again = fit(Regression(None, train, tmp_path), train, records, tmp_path / "run", began=began)
    assert seconds() - began <= 120
    assert int(again["step"]) > count + 20
    assert steps[count]["step"] == count + 1
    assert float(steps[count]["learning_rate"]) == pytest.approx(1e-2)  # no warm-up, and the schedule's beginning


def test_time_that_was_too_short_still_ends_with_a_checkpoint(records, tmp_path, seconds):
    train = dataclasses.replace(TRAIN, minutes=0.01)
    state = fit(Regression(None, train, tmp_path), train, records, tmp_path / "run")
    assert 1 <= int(state["step"]) <= 3
    assert (tmp_path / "run" / "checkpoints" / str(int(state["step"]))).is_dir()


def test_the_first_host_s_clock_counts(seconds, monkeypatch):
    own = Clock(1.0, seconds())
    first = own.elapsed(4)
    assert (first > 0).all()
    assert (first == first[0]).all()
    monkeypatch.setattr(hosts, "is_main_process", lambda: False)
    np.testing.assert_array_equal(own.elapsed(4), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"minutes": 0.0}, "minutes must be positive"), ({"decay_fraction": 0.0}, "decay_fraction must be above 0")],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TRAIN, **change)
