"""TensorBoard's events against those of tensorboardX."""

import subprocess
import sys

import numpy as np
from tensorboardX import summary
from tensorboardX.proto import event_pb2

from elements_jax.data import tfevents
from elements_jax.data.tfevents import Event


def test_values_are_those_of_tensorboardx() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    pairs = [
        (tfevents.scalar("train/loss", 0.0), summary.scalar("train/loss", 0.0)),  # a zero is not left out
        (tfevents.scalar("train/loss", -1.5), summary.scalar("train/loss", -1.5)),
        (tfevents.image("samples", pixels), summary.image("samples", pixels, dataformats="HWC")),
        (tfevents.text("settings", "steps 2 → 4"), summary.text("settings", "steps 2 → 4")),
    ]
    for value, theirs in pairs:
        ours = Event(wall_time=1.5, step=3, summary={"value": [value]})
        expected = event_pb2.Event(wall_time=1.5, step=3, summary=theirs)
        assert ours.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_the_start_of_a_file_is_that_of_tensorboardx() -> None:
    ours = Event(wall_time=1.5, step=3, session_log={"status": tfevents.START})
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    assert ours.SerializeToString() == event_pb2.Event(wall_time=1.5, step=3, session_log=start).SerializeToString()
    version = "brain.Event:2"
    assert Event(file_version=version).SerializeToString() == event_pb2.Event(file_version=version).SerializeToString()


def test_training_loads_no_torch() -> None:
    """tensorboardX does where PyTorch is installed, which takes seconds at each start."""
    program = "import sys; import train.loop, elements_jax.cli.train; print({'torch', 'tensorflow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
