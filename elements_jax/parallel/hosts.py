"""Several hosts as one run: each runs the same command on the same folders and holds a part of the arrays."""

import os
import sys

import jax
from jax.experimental import multihost_utils

from elements_jax.typing import Tree

_GIVEN = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")  # programs must read these, unlike the coordinator's address


def initialize_distributed() -> None:
    """Join the other processes of a run, if the environment describes one; otherwise do nothing.

    JAX itself detects TPU pods, SLURM, Open MPI and indexed jobs of Kubernetes. Elsewhere set JAX_COORDINATOR_ADDRESS,
    the host:port of the first process, JAX_NUM_PROCESSES and JAX_PROCESS_ID. If the calling program has initialized JAX
    already, nothing changes.

    Raises ValueError if the environment names a coordinator but not the rest.
    """
    if "JOB_COMPLETION_INDEX" not in os.environ:
        # JAX takes every Kubernetes pod for part of an indexed job, and warns or fails in others.
        os.environ.pop("KUBERNETES_SERVICE_HOST", None)
    processes, own = (int(os.environ[name]) if name in os.environ else None for name in _GIVEN)
    try:
        jax.distributed.initialize(num_processes=processes, process_id=own)
    except (ValueError, RuntimeError) as error:
        # JAX's messages if it found nothing, or is running already.
        if not any(
            words in str(error) for words in ("coordinator_address", "must be called before", "only be called once")
        ):
            raise


def is_main_process() -> bool:
    """Tell whether this host is the one that prints and writes shared files."""
    return jax.process_index() == 0


def barrier(what: str) -> None:
    """Wait until all hosts get here."""
    multihost_utils.sync_global_devices(what)


def fetch_to_host(tree: Tree) -> Tree:
    """Gather a tree of distributed arrays as NumPy arrays; all hosts must call it."""
    return multihost_utils.process_allgather(tree, tiled=True)


def abort(why: str) -> None:
    """After an error in one of several processes, print the reason and exit at once with code 1.

    A normal exit would deadlock on the others' collectives.
    """
    if jax.process_count() > 1:
        print(why, file=sys.stderr, flush=True)
        os._exit(1)
