"""Several hosts as one run: every host runs the same command on the same folders, and holds its part of the arrays."""

import os
import sys

import jax
from jax.experimental import multihost_utils

from elements_jax.typing import Tree

_GIVEN = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")  # which JAX leaves to programs to read, unlike the coordinator's


def initialize_distributed() -> None:
    """Make this process one of several, where its environment says so; otherwise do nothing.

    JAX itself knows TPU pods, SLURM, Open MPI and indexed jobs of Kubernetes. Elsewhere JAX_COORDINATOR_ADDRESS, the
    host:port of the first process, JAX_NUM_PROCESSES and JAX_PROCESS_ID say it. Where JAX has been started before, by a
    program of which the command is a part, its processes stay as they are.

    Raises ValueError where the environment names a coordinator and not the rest.
    """
    if "JOB_COMPLETION_INDEX" not in os.environ:
        # JAX takes every pod of Kubernetes for one of an indexed job, and warns or fails in those that are none.
        os.environ.pop("KUBERNETES_SERVICE_HOST", None)
    processes, own = (int(os.environ[name]) if name in os.environ else None for name in _GIVEN)
    try:
        jax.distributed.initialize(num_processes=processes, process_id=own)
    except (ValueError, RuntimeError) as error:
        # These are how JAX says that it found nothing, and that it runs already.
        if not any(
            words in str(error) for words in ("coordinator_address", "must be called before", "only be called once")
        ):
            raise


def is_main_process() -> bool:
    """Whether this host is the one that prints and writes what is written once."""
    return jax.process_index() == 0


def barrier(what: str) -> None:
    """Go on when all hosts have come here."""
    multihost_utils.sync_global_devices(what)


def fetch_to_host(tree: Tree) -> Tree:
    """NumPy's arrays of a tree of which every host holds parts; all must ask for it."""
    return multihost_utils.process_allgather(tree, tiled=True)


def abort(why: str) -> None:
    """After an error, where this process is one of several: say why and end now, with exit code 1.

    At its ordinary end it would wait for the others, which wait for what it should have sent them.
    """
    if jax.process_count() > 1:
        print(why, file=sys.stderr, flush=True)
        os._exit(1)
