"""How a command ends."""

import sys
from collections.abc import Callable, Collection
from typing import Any

from elements_jax.object_store import with_local_paths
from elements_jax.parallel.program_cache import keep_programs
from elements_jax.parallel.xla_flags import prefer_own_convolutions


def exit_code(run: Callable[[], None]) -> int:
    """Run a command: 0, or, after an error of the user's making, which is one line on stderr, 1."""
    prefer_own_convolutions()
    keep_programs()
    try:
        run()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run_with_local_paths(command: Any, keep: Collection[str] = ()) -> None:
    """Run a command on copies of the URLs that it names, but for the fields to `keep`, and upload what it writes."""
    with with_local_paths(command, keep) as local:
        local.run()
