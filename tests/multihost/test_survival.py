"""Runs that are killed, told to stop, or lose a host, and resume, also on other meshes, hosts and workers."""

import pickle
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from elements_jax.checkpoints.model_folder import load_present
from elements_jax.data.tfrecord import scan_tfrecord
from elements_jax.models.networks import Networks
from tests.helpers.processes import ended, start
from tests.helpers.records import SMALL, write_records
from tests.helpers.regression import TRAIN

TOLD_TO_END = 128 + signal.SIGTERM  # the exit code
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
"""Error of state and losses after 24 steps on another mesh, which sums in another order; 1e-6 of the largest was
measured."""


def train(data: Path, model: Path, *settings: object, **environment: object) -> subprocess.Popen:
    """Run `elements train` with the regression."""
    return start("-m", "tests.multihost.host", "--data", data, "--model", model, *settings, **environment)


def by_slurm(port: int, host: int) -> dict[str, object]:
    """Return SLURM's variables for the processes of a job, with a port, which otherwise depends on the job's number."""
    variables = {"JOB_ID": 1, "STEP_NODELIST": "localhost", "NTASKS": 2, "PROCID": host, "LOCALID": host}
    return {f"SLURM_{name}": value for name, value in variables.items()} | {"JAX_COORDINATOR_PORT": port}


def by_hand(port: int, host: int) -> dict[str, object]:
    return {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": 2, "JAX_PROCESS_ID": host}


def on_two_hosts(
    data, model, mesh, told=by_hand, steps=TRAIN.steps, more=(), **environment
) -> list[tuple[int, str, str]]:
    """Run on two hosts with four devices each; return (exit code, output, errors) of both."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    settings = [*on_mesh(*mesh), "--train.steps", steps, *more]
    hosts = [train(data, model, *settings, devices=4, **told(port, host), **environment) for host in range(2)]
    return [ended(host) for host in hosts]


def on_mesh(data: int, fsdp: int) -> list[object]:
    return ["--train.data-parallel", data, "--train.fsdp", fsdp]


def committed(model: Path) -> list[int]:
    steps = (model / "runs" / "autoencoder" / "checkpoints").glob("*/commit_success.txt")
    return sorted(int(path.parent.name) for path in steps)


def reported_losses(model: Path) -> dict[int, float]:
    """Return step -> loss as TensorBoard shows it: a run that starts at a step hides earlier reports from there on."""
    losses: dict[int, float] = {}
    for path in sorted((model / "runs" / "autoencoder").glob("events.*")):
        for event in map(Event.FromString, scan_tfrecord(path)):
            if event.session_log.status == SessionLog.START:
                losses = {step: loss for step, loss in losses.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "train/loss":
                    losses[event.step] = value.simple_value
    return losses


def assert_exported(model: Path, state) -> None:
    """Check that the export got the complete averaged parameters and the complete held-out batch."""
    with np.load(model / "exported.npz") as exported:
        expected = state["ema"] | {"index": np.arange(TRAIN.batch_size)}
        jax.tree.map(np.testing.assert_array_equal, dict(exported), expected)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """(final state, model folder) of a run on one device."""
    model = tmp_path_factory.mktemp("undisturbed")
    code, printed, errors = ended(train(data, model, STATE=model / "state"))
    assert code == 0, errors
    assert f"step {TRAIN.steps}/{TRAIN.steps}" in printed
    return pickle.loads((model / "state").read_bytes()), model


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(data, undisturbed, tmp_path):
    """First it is told to stop; then it saves every step, so that most moments are within a save."""
    code, printed, _ = ended(train(data, tmp_path, SIGNAL=f"{int(signal.SIGTERM)} 0 3"))
    assert code == TOLD_TO_END
    assert "ended by SIGTERM after step 3" in printed
    assert committed(tmp_path) == [3]
    moments, kills = random.Random(0), 0
    for _ in range(3):
        process = train(data, tmp_path, "--train.checkpoint-every", 1)
        next(line for line in process.stdout if line.startswith("step"))
        time.sleep(moments.uniform(0, 1))
        process.kill()
        kills += ended(process)[0] == -signal.SIGKILL
    assert kills >= 2
    code, _, errors = ended(train(data, tmp_path, "--train.checkpoint-every", 1, STATE=tmp_path / "state"))
    assert code == 0, errors
    expected, model = undisturbed
    jax.tree.map(np.testing.assert_array_equal, pickle.loads((tmp_path / "state").read_bytes()), expected)
    assert reported_losses(tmp_path) == reported_losses(model)
    assert_exported(tmp_path, expected)


def test_a_run_resumes_on_other_hosts_and_meshes(data, undisturbed, tmp_path):
    (first, printed, _), (second, silent, _) = on_two_hosts(data, tmp_path, (2, 4), SIGNAL=f"{int(signal.SIGKILL)} 1 7")
    assert second == -signal.SIGKILL
    assert first not in (0, TOLD_TO_END)  # it also ends, and does not wait for the other
    assert "step 6/24" in printed
    assert "step" not in silent
    assert committed(tmp_path)[-1] == 4

    (first, printed, _), (second, silent, _) = on_two_hosts(
        data, tmp_path, (4, 2), by_slurm, SIGNAL=f"{int(signal.SIGTERM)} 1 9"
    )
    assert (first, second) == (TOLD_TO_END, TOLD_TO_END)
    last = int(re.search(r"ended by SIGTERM after step (\d+)", printed)[1])
    assert 9 <= last < TRAIN.steps
    assert committed(tmp_path)[-1] == last
    assert "step 5/24" in printed
    assert "step" not in silent
    assert "ended" not in silent

    settings = [*on_mesh(1, 8), "--train.workers", 2]
    code, printed, errors = ended(train(data, tmp_path, *settings, devices=8, STATE=tmp_path / "state"))
    assert code == 0, errors
    assert f"step {last + 1}/24" in printed
    assert f"step {last}/24" not in printed
    expected, model = undisturbed
    state = pickle.loads((tmp_path / "state").read_bytes())
    jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, **TOLERANCE), state, expected)
    losses, others = reported_losses(tmp_path), reported_losses(model)
    assert losses.keys() == others.keys() == set(range(1, TRAIN.steps + 1))
    np.testing.assert_allclose(list(losses.values()), list(others.values()), **TOLERANCE)
    assert_exported(tmp_path, state)


def test_all_hosts_end_by_the_clock_of_the_first(data, tmp_path):
    """The other hosts have no clock: the time reaches them with the steps."""
    for code, _, errors in on_two_hosts(data, tmp_path, (2, 4), more=["--train.minutes", 0.01]):
        assert code == 0, errors
    [step] = committed(tmp_path)
    assert 1 <= step <= 3


@pytest.mark.slow
def test_a_stage_trained_on_two_hosts_resumes_on_one(data, tmp_path):
    """The autoencoder runs first on 2 x 4 devices of two hosts, then on 1 x 8 of one, against one device from the
    start."""
    alone, moved, steps = tmp_path / "alone", tmp_path / "moved", "--train.steps"
    undisturbed = train(data, alone, steps, 4, STAGE="real", STATE=alone / "state")
    for code, _, errors in on_two_hosts(data, moved, (2, 4), steps=2, STAGE="real"):
        assert code == 0, errors
    assert committed(moved) == [2]
    resumed = train(data, moved, *on_mesh(1, 8), steps, 4, devices=8, STAGE="real", STATE=moved / "state")
    for process in (undisturbed, resumed):
        code, printed, errors = ended(process)
        assert code == 0, errors
    assert "step 3/4" in printed
    assert "step 2/4" not in printed
    state, expected = (pickle.loads((folder / "state").read_bytes()) for folder in (moved, alone))
    losses, others = reported_losses(moved), reported_losses(alone)
    assert losses.keys() == others.keys() == {1, 2, 3, 4}
    np.testing.assert_allclose(list(losses.values()), list(others.values()), **TOLERANCE)

    def close(one, other, second_moment):
        # AdamW takes a step of about the learning rate, 0.01, even if the gradient is only rounding error, as for a
        # bias before a norm.
        has_gradient = np.sqrt(second_moment) > 1e-7
        np.testing.assert_allclose(np.where(has_gradient, one, 0), np.where(has_gradient, other, 0), rtol=0, atol=1e-3)
        return has_gradient.mean()

    shares = jax.tree.map(close, state["params"], expected["params"], expected["opt_state"][1][0].nu)
    assert np.mean(jax.tree.leaves(shares)) > 0.8
    parameters = load_present(moved, Networks(SMALL), "encoder", "decoder")
    jax.tree.map(np.testing.assert_array_equal, parameters, state["ema"])


def test_an_error_on_one_host_ends_the_run(data, tmp_path):
    (first, _, _), (second, _, errors) = on_two_hosts(data, tmp_path, (2, 4), SIGNAL=f"{int(signal.SIGUSR1)} 1 3")
    assert second == 1
    assert "error: no space left" in errors.splitlines()
    assert first not in (0, TOLD_TO_END)


def test_an_interrupted_run_saves_its_step_and_prints_one_line(data, tmp_path):
    """As with Ctrl-C, readers of records also get the signal."""
    process = train(data, tmp_path, "--train.workers", 1, SIGNAL=f"{int(signal.SIGINT)} 0 3", GROUP=1)
    code, printed, errors = ended(process)
    assert code == 128 + signal.SIGINT, errors
    assert "ended by SIGINT after step 3, which is saved" in printed
    assert committed(tmp_path) == [3]
    assert "Traceback" not in errors


ALONE = """
import jax
from elements_jax.parallel import hosts
hosts.initialize_distributed()
assert jax.process_count() == 1 and not jax.distributed.is_initialized()
"""


def test_a_single_host_joins_nothing_and_prints_nothing():
    kubernetes = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}  # an ordinary pod
    assert ended(start("-c", ALONE, **kubernetes)) == (0, "", "")
