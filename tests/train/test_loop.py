"""The loop: its learning, and its files."""

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.helpers.records import write_records
from tests.helpers.regression import Regression
from train.checkpoint import Checkpoints
from train.config import AutoencoderTrainConfig
from train.input.data import dataset
from train.log import Log
from train.loop import fit
from train.stages.autoencoder import AutoencoderStage
from train.state import abstract_state, make_optimizer

CONFIG = AutoencoderTrainConfig(
    steps=60,
    batch_size=8,
    learning_rate=1e-2,
    warmup=5,
    ema_decay=0.9,
    checkpoint_every=20,
    sample_every=30,
    log_every=20,
)


def committed(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "run" / "checkpoints").glob("*") if path.name.isdigit())


def test_an_update_that_is_not_finite_is_skipped_and_counted(records, tmp_path, capsys):
    """Loss and gradient may be finite: here learning rate times parameter exceeds float32."""
    train = dataclasses.replace(CONFIG, steps=4, warmup=1, learning_rate=1e37, weight_decay=1e3, log_every=4)
    still = dataclasses.replace(train, learning_rate=0.0)
    moved = fit(Regression(None, train, tmp_path), train, records, tmp_path / "moved")
    start = fit(Regression(None, still, tmp_path), still, records, tmp_path / "still")
    jax.tree.map(np.testing.assert_array_equal, moved["params"], start["params"])
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), moved["ema"], start["ema"])
    shown = re.findall(r"step 4/4 .* skipped", capsys.readouterr().out)
    assert [line.rpartition("  ")[2] for line in shown] == ["75% skipped"]  # the first has a learning rate of zero


def test_a_run_whose_loss_is_not_finite_skips_and_then_stops(records, tmp_path, capsys):
    class Diverging(Regression):
        """A stage in which the loss of some batches is not a number."""

        def loss(self, params, frozen, batch, keys, step):
            loss, metrics = super().loss(params, frozen, batch, keys, step)
            return jnp.where(jnp.isin(batch["index"] // 8, self.bad).any(), jnp.nan, loss), metrics

    train = dataclasses.replace(CONFIG, steps=6, log_every=3, max_consecutive_skips=2)
    stage = Diverging(None, train, tmp_path)
    stage.bad = jnp.array([1, 3, 4])  # batches, and so steps, counted from zero
    state = fit(stage, train, records, tmp_path / "run")
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert int(state["opt_state"][1][0].count) == 3  # of 6 steps
    shown = capsys.readouterr().out
    assert re.findall(r"(\d+)% skipped", shown) == ["33", "67"]
    assert "step 6/6  loss nan" not in shown
    stage.bad = jnp.array([2, 3, 4])
    with pytest.raises(FloatingPointError, match="3 updates in a row"):
        fit(stage, train, records, tmp_path / "another")


def test_some_checkpoints_are_kept_for_good(records, tmp_path):
    train = dataclasses.replace(CONFIG, steps=8, checkpoint_every=1, keep=2, keep_every=3)
    fit(Regression(None, train, tmp_path), train, records, tmp_path / "run")
    assert committed(tmp_path) == [3, 6, 7, 8]


def test_the_first_moment_is_stored_as_asked(small, tmp_path):
    train = dataclasses.replace(CONFIG, first_moment="bfloat16")
    adam = abstract_state(AutoencoderStage(small, train, tmp_path), make_optimizer(train))["opt_state"][1][0]
    assert {leaf.dtype for leaf in jax.tree.leaves(adam.mu)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(adam.nu)} == {jnp.dtype("float32")}


@pytest.fixture(scope="module")
def finished(records, small, tmp_path_factory):
    """(final state, model folder, terminal output) of a complete run."""
    folder, shown = tmp_path_factory.mktemp("model"), io.StringIO()
    train = dataclasses.replace(CONFIG, profile=(3, 5))
    with contextlib.redirect_stdout(shown):
        state = fit(AutoencoderStage(small, train, folder), train, records, folder / "run")
    return state, folder, shown.getvalue()


def test_a_small_run_learns(finished):
    """Golden figure: the averaged parameters had a held-out loss of 0.133 after 30 steps and 0.075 after 60."""
    state, _, shown = finished
    losses = [float(loss) for loss in re.findall(r"held out: loss (\S+)", shown)]
    assert int(state["step"]) == CONFIG.steps
    assert len(losses) == 2
    assert losses[1] < 0.1 < losses[0]


def test_the_terminal_says_where_the_run_is(finished):
    _, _, shown = finished
    line = r"step 40/60  loss [\d.e-]+  psnr [\d.]+  [\d.]+ images/s  \d+:\d\d left"
    assert re.search(line, shown)
    assert [int(step) for step in re.findall(r"step (\d+)/60", shown)] == [20, 40, 60]


def test_the_terminal_describes_a_step_once(finished):
    state, _, shown = finished
    line = r"([\d.e-]+) M parameters, ([\d.e-]+) TFLOP an update \(XLA counts ([\d.e-]+)\), compiled in \d+\.\d s\n"
    [(parameters, flops, xla_flops)] = re.findall(line, shown)
    expected = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    assert float(parameters) * 1e6 == pytest.approx(expected, rel=0.01)
    assert 0.5 < float(flops) / float(xla_flops) < 2  # XLA also counts other operations, but not those inside libraries


def test_a_window_of_steps_is_traced_where_tensorboard_looks(finished):
    _, folder, _ = finished
    [trace] = (folder / "run" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert b"step_num" in trace.read_bytes()


def test_a_finished_run_is_only_exported_again(finished, small, records, capsys):
    _, folder, _ = finished
    exported = (folder / "elements" / "decoder.safetensors").read_bytes()
    (folder / "elements" / "decoder.safetensors").unlink()
    fit(AutoencoderStage(small, CONFIG, folder), CONFIG, records, folder / "run")
    assert (folder / "elements" / "decoder.safetensors").read_bytes() == exported
    assert "step" not in capsys.readouterr().out


def test_a_checkpoint_holds_its_step_while_training_continues(finished, tmp_path):
    """Saving runs in the background while steps donate the buffers it reads."""
    state, _, _ = finished
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    expected = jax.device_get(jax.tree.map(lambda leaf: leaf + 0, state))
    overwrite = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0, state), donate_argnums=0)
    copy = jax.tree.map(lambda leaf: leaf + 0, state)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(copy, {"seed": 0, "examples": 7})
        jax.block_until_ready(overwrite(copy))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        restored, place = checkpoints.restore(shapes, {"seed": 0})
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), expected)
    assert place["examples"] == 7


def test_a_run_resumed_from_another_continues_like_it(records, tmp_path):
    train = dataclasses.replace(CONFIG, steps=2)
    longer = dataclasses.replace(train, steps=4)
    fit(Regression(None, CONFIG, tmp_path), train, records, tmp_path / "first")
    state = fit(Regression(None, CONFIG, tmp_path), longer, records, tmp_path / "second", tmp_path / "first")
    expected = fit(Regression(None, CONFIG, tmp_path), longer, records, tmp_path / "first")
    assert int(state["opt_state"][1][0].count) == 4
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert [path.name for path in (tmp_path / "second" / "checkpoints").iterdir()] == ["4"]
    again = fit(Regression(None, CONFIG, tmp_path), longer, records, tmp_path / "second", tmp_path / "nowhere")
    jax.tree.map(np.testing.assert_array_equal, again, expected)  # from its own checkpoint


def test_a_resumed_run_names_changes_and_rejects_other_data(records, tmp_path, capsys):
    train = dataclasses.replace(CONFIG, steps=2)
    fit(Regression(None, train, tmp_path), train, records, tmp_path / "run")
    capsys.readouterr()
    other = dataclasses.replace(train, steps=4, learning_rate=5e-3, batch_size=4)
    fit(Regression(None, other, tmp_path), other, records, tmp_path / "run")
    line = "resumes after step 2 with other settings: steps 2 -> 4, batch_size 8 -> 4, learning_rate 0.01 -> 0.005\n"
    assert line in capsys.readouterr().out
    assert any(line.encode().strip() in path.read_bytes() for path in (tmp_path / "run").glob("events.*"))
    fit(Regression(None, other, tmp_path), dataclasses.replace(other, steps=5), records, tmp_path / "run")
    assert "other settings: steps 4 -> 5\n" in capsys.readouterr().out

    changed = write_records(tmp_path / "changed", first=1)  # the same number, perhaps with the same size
    with pytest.raises(ValueError, match=r"another data set.*: changed here, records\d* there:\n  identity: exp"):
        fit(Regression(None, other, tmp_path), other, changed, tmp_path / "run")


def test_the_next_batch_is_on_its_way_while_a_step_runs(records, tmp_path, monkeypatch):
    """Nothing waits for a step before the next batch was sent to the devices; the last step has no next batch."""
    happened, put, took_in = [], jax.make_array_from_process_local_data, Log.step

    def noted(sharding, array):
        if array.ndim == 1 and array.dtype == np.int32:  # the examples' places
            happened.append(f"batch {array[0] // 8 + 1}")
        return put(sharding, array)

    def step(log, number, metrics):
        happened.append(f"after step {number}")
        took_in(log, number, metrics)

    monkeypatch.setattr(jax, "make_array_from_process_local_data", noted)
    monkeypatch.setattr(Log, "step", step)
    train = dataclasses.replace(CONFIG, steps=3, sample_every=3)
    fit(Regression(None, CONFIG, tmp_path), train, records, tmp_path / "run")
    held_out, *happened = happened
    assert held_out == "batch 1"
    assert happened == ["batch 1", "batch 2", "after step 1", "batch 3", "after step 2", "after step 3"]


def test_a_checkpoint_of_another_model_is_refused(finished, small, records):
    _, folder, _ = finished
    other = dataclasses.replace(small, decoder=dataclasses.replace(small.decoder, channels=24))
    with pytest.raises(
        ValueError, match=r"checkpoints: step 60 belongs to another model.*\n.*expected \(24, 24\), found \(24, 16\)"
    ):
        fit(AutoencoderStage(other, CONFIG, folder / "other"), CONFIG, records, folder / "run")


def test_old_checkpoints_go(finished):
    _, folder, _ = finished
    assert len(committed(folder)) == CONFIG.keep


def test_sample_grids_show_every_row(finished, records):
    _, folder, _ = finished
    names = sorted(path.name for path in (folder / "run" / "samples").iterdir())
    assert {"0000030.png", "0000060.png"} <= set(names)
    with Image.open(folder / "run" / "samples" / "0000060.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (3 * (14 + 128 + 2), 8 * (128 + 2), 3)
    with contextlib.closing(dataset(records, "val", batch_size=8, seed=0, shuffle=False, tokenize=None)) as batches:
        held_out = next(batches)["image"]
    for column in range(8):  # the held-out images at the top, enlarged eight times
        tile = pixels[14 : 14 + 128, column * 130 : column * 130 + 128]
        np.testing.assert_array_equal(tile[::8, ::8], held_out[column])


def test_the_batch_must_split_over_the_devices(small, records, tmp_path, monkeypatch):
    monkeypatch.setattr("elements_jax.parallel.sharding.make_mesh", lambda data, fsdp: type("Mesh", (), {"size": 3}))
    with pytest.raises(ValueError, match="batch_size=8 cannot be split over 3 devices"):
        fit(AutoencoderStage(small, CONFIG, tmp_path), CONFIG, records, tmp_path / "run")
    monkeypatch.setattr("elements_jax.parallel.sharding.make_mesh", lambda data, fsdp: type("Mesh", (), {"size": 4}))
    train = dataclasses.replace(CONFIG, accumulate=4)
    with pytest.raises(ValueError, match="batch_size=8 cannot be split over 4 devices in 4 parts"):
        fit(AutoencoderStage(small, train, tmp_path), train, records, tmp_path / "run")
