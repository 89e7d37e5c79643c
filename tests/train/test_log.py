"""The reports of a run: averages, rates, and the use of its time."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from elements_jax.data import tfevents
from elements_jax.data.tfrecord import TFRecordSource
from elements_jax.parallel.sharding import make_mesh
from train import log as metrics
from train.config import AutoencoderTrainConfig
from train.cost.chips import Chip
from train.log import Events, Log, averaged
from train.stages.autoencoder import AutoencoderStage
from train.stages.diffusion import by_timestep
from train.state import init_state, make_optimizer
from train.step import jit_step

TRAIN = AutoencoderTrainConfig(steps=40, batch_size=8, learning_rate=1e-3, log_every=4)


def scalars(folder) -> dict[str, dict[int, float]]:
    """Return TensorBoard's values by tag and step."""
    found: dict[str, dict[int, float]] = {}
    source = TFRecordSource(sorted(folder.glob("events.*")))
    for event in (Event.FromString(source[number]) for number in range(len(source))):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


class Errors(AutoencoderStage):
    """A stage whose examples' errors and timesteps are in the batch."""

    def __init__(self):
        self.train, self.frozen = TRAIN, {}

    def shapes(self):
        return {"scale": jax.ShapeDtypeStruct((), jnp.float32)}

    def init(self, key, pretrained):
        return {"scale": jnp.ones(())}

    def cast(self, params):
        return params

    def loss(self, params, frozen, batch, keys, step):
        error = params["scale"] * batch["error"]
        return error.mean(), by_timestep(error, batch["timestep"], 1000)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_losses_by_timestep_are_means_over_a_bucket(accumulate):
    train = dataclasses.replace(TRAIN, accumulate=accumulate, learning_rate=0.0)
    stage, optimizer, rng = Errors(), make_optimizer(train), np.random.default_rng(0)
    state = jax.tree.map(
        jnp.array, init_state(optimizer, stage.init(jax.random.key(0), {}))
    )  # copies, since they are donated
    step = jit_step(stage, optimizer, train, make_mesh(1, 1))
    errors = rng.random((5, 8)).astype(np.float32)
    timesteps = rng.integers(0, 750, (5, 8)).astype(np.int32)  # none in the last bucket
    timesteps[0], timesteps[1, :3] = 10, (0, 249, 250)  # the first step has only one bucket
    window = []
    for error, timestep in zip(errors, timesteps, strict=True):
        nothing = dict.fromkeys(("label_map", "object_mask"), np.zeros((8, 1, 1), np.int32))
        batch = {"error": error, "timestep": timestep, "index": np.arange(8, dtype=np.int32), **nothing}
        state, figures = step(state, {}, batch, jax.random.key(1))
        window.append(jax.device_get(figures))
    found = {name: value for name, value in averaged(window).items() if name.startswith("loss_t")}
    expected = {
        f"loss_t{first}-{first + 249}": errors[(timesteps >= first) & (timesteps < first + 250)].mean()
        for first in (0, 250, 500)
    }
    assert found == pytest.approx(expected, rel=1e-5)


class Machine:
    """A clock that waits and steps advance: the host prepares a step while the device computes the one before."""

    def __init__(self):
        self.now = self.free = 100.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds

    def step(self, seconds: float) -> dict[str, Any]:
        """Return the metrics of a step that starts when the device is free; reading them waits for its end."""
        self.free = end = max(self.now, self.free) + seconds

        class Loss:
            def __array__(_):
                self.now = max(self.now, end)
                return np.float32(1)

        return {"loss": Loss(), "skipped": np.float32(0)}


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(metrics, "time", machine)
    return machine


def test_rates_leave_out_samples_and_show_waiting_and_saving(tmp_path, machine, capsys, monkeypatch):
    monkeypatch.setitem(metrics.CHIPS, jax.devices()[0].device_kind, Chip(10e12, 1, 1, 1))
    product = jax.jit(jnp.matmul).lower(*[jax.ShapeDtypeStruct((10_000, 10_000), jnp.float32)] * 2).compile()
    with Log(tmp_path, 0, TRAIN) as log:
        log.compiled({"kernel": jnp.zeros((1000, 3000))}, lambda: 4e12, product, 12.34)
        for step in range(1, 9):
            with log.timed("input"):
                machine.spend(0.5)
            log.step(step, machine.step(2))
            if step == 6:
                with log.timed("samples"):
                    machine.spend(60)
                with log.timed("checkpoint"):
                    machine.spend(4)
    # A step is 0.4 s of arithmetic. The first metrics cover steps 2 to 4: 6 s, in which the host waits twice.
    # The others cover 13 s: four steps, 4 s of saving, and twice half a second in which the device waits too, after
    # the report and after the samples.
    assert capsys.readouterr().out.splitlines() == [
        "3 M parameters, 4 TFLOP an update (XLA counts 2), compiled in 12.3 s",
        "step 4/40  loss 1  4.0 images/s  MFU 20%  1:12 left  17% waiting for input",
        "step 8/40  loss 1  2.5 images/s  MFU 12%  1:44 left  15% waiting for input  31% saving",
    ]
    expected = {
        "compiled/parameters": {0: 3e6},
        "compiled/flops": {0: 4e12},
        "compiled/xla_flops": {0: 2e12},
        "compiled/seconds": {0: 12.34},
        "train/loss": {4: 1, 8: 1},
        "train/skipped": {4: 0, 8: 0},
        "train/images_per_second": {4: 4, 8: 32 / 13},
        "train/images_per_second_per_chip": {4: 4, 8: 32 / 13},
        "train/mfu": {4: 0.2, 8: 1.6 / 13},
        "train/input_wait": {4: 1 / 6, 8: 2 / 13},
        "train/checkpoint_seconds": {4: 0, 8: 4},
    }
    assert scalars(tmp_path) == {tag: pytest.approx(values) for tag, values in expected.items()}


def test_the_terminal_stays_terse(tmp_path, machine, capsys):
    with Log(tmp_path, 0, TRAIN) as log:
        for step in range(1, 5):
            with log.timed("input"):
                machine.spend(0.1)
            log.step(step, machine.step(10))
            with log.timed("checkpoint"):
                machine.spend(0.1)
    assert re.fullmatch(r"step 4/40  loss 1  0.8 images/s  \d:\d\d left\n", capsys.readouterr().out)
    assert "train/mfu" not in scalars(tmp_path)


def test_held_out_losses_by_timestep_are_only_in_tensorboard(tmp_path, capsys):
    figures = jax.device_get({"loss": jnp.float32(2)} | by_timestep(jnp.float32([1, 3]), jnp.int32([0, 999]), 1000))
    with Log(tmp_path, 0, TRAIN) as log:
        log.evaluated(7, figures, np.zeros((4, 4, 3), np.uint8), tmp_path / "picture.png", held_out=True)
    assert capsys.readouterr().out == "  held out: loss 2\n"
    found = scalars(tmp_path)
    assert found == {f"held_out/loss{name}": {7: value} for name, value in (("", 2), ("_t0-249", 1), ("_t750-999", 3))}


def test_examples_of_the_training_set_are_not_called_held_out(tmp_path, capsys):
    with Log(tmp_path, 0, TRAIN) as log:
        log.evaluated(7, {"loss": 2.0}, np.zeros((4, 4, 3), np.uint8), tmp_path / "picture.png", held_out=False)
    assert capsys.readouterr().out == "  seen in training: loss 2\n"
    assert scalars(tmp_path) == {"seen_in_training/loss": {7: 2.0}}


def traced(folder) -> list:
    return list((folder / "plugins" / "profile").glob("*/*.xplane.pb"))


def test_a_window_of_steps_is_traced(tmp_path):
    compute = jax.jit(lambda x: {"loss": (x @ x).sum(), "skipped": 0.0})
    train = dataclasses.replace(TRAIN, profile=(2, 4))
    with Log(tmp_path, 0, train) as log:
        for step in range(1, 6):
            log.profile(step)
            assert bool(traced(tmp_path)) == (step >= 4)
            log.step(step, compute(jnp.ones((8, 8))))
    assert len(traced(tmp_path)) == 1


def test_a_run_that_ends_within_a_trace_writes_it(tmp_path):
    with Log(tmp_path, 0, dataclasses.replace(TRAIN, profile=(2, 100))) as log:
        log.profile(7)  # like a run resumed there
    assert len(traced(tmp_path)) == 1


def test_unwritable_events_stop_the_run_and_name_the_file(tmp_path):
    events = Events(tmp_path, 0)
    [path] = tmp_path.iterdir()
    events.add(1, tfevents.scalar("a", 1.0))
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        events.add(2, tfevents.scalar("a", 2.0))
