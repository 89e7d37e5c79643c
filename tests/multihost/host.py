"""`elements train autoencoder` as a separate process, with a regression in place of the stage.

It reads these environment variables, besides those of the command:

    SIGNAL   "number host step": the signal that this host sends itself at this step; SIGUSR1 is an error
    STATE    file to which the final state is pickled
    GROUP    set if the signal goes to the complete process group, as from a terminal
    STAGE    "real" for the autoencoder itself, of a few thousand parameters
"""

import os
import pickle
import signal
import sys
import time
from pathlib import Path

import jax

from configs import PRESETS
from elements_jax.cli import train as cli
from elements_jax.parallel import hosts, sharding
from tests.helpers.records import SMALL
from tests.helpers.regression import TRAIN, Regression
from train import log as metrics
from train import loop
from train.config import Preset
from train.stages import autoencoder

if os.environ.get("STAGE") != "real":
    autoencoder.AutoencoderStage = Regression
PRESETS["tiny"] = Preset(model=SMALL, autoencoder=TRAIN)
sharding.MIN_SHARDED_SIZE = 64  # so that there is something to split
fit, took_in = loop.fit, metrics.Log.step


def fit_and_keep(*arguments):
    state = fit(*arguments)
    whole = hosts.fetch_to_host(state)
    if hosts.is_main_process() and "STATE" in os.environ:
        Path(os.environ["STATE"]).write_bytes(pickle.dumps(whole))
    return state


def step(log, number, figures):
    took_in(log, number, figures)
    what, host, at = map(int, os.environ.get("SIGNAL", f"0 0 {TRAIN.steps}").split())
    if number == at and jax.process_index() == host:
        (os.killpg if "GROUP" in os.environ else os.kill)(os.getpid(), what)
    if number > at:
        time.sleep(0.3)  # JAX checks for signals once a second; the run must last longer


def fail(number, frame):
    raise OSError("no space left")


signal.signal(signal.SIGUSR1, fail)
loop.fit, metrics.Log.step = fit_and_keep, step
if "GROUP" in os.environ and __name__ == "__main__":
    os.setpgrp()
if __name__ == "__main__":  # Grain's workers import this file too
    sys.exit(cli.main(["autoencoder", "tiny", *sys.argv[1:]]))
