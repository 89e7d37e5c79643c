"""Keeps compiled programs on disk, so that the next process need not compile them again.

All commands do so. In Python, call this before JAX compiles anything:

    from elements_jax.parallel.program_cache import keep_programs
    keep_programs()

JAX's own settings take precedence: JAX_COMPILATION_CACHE_DIR names another folder, and
JAX_ENABLE_COMPILATION_CACHE=false turns the cache off. On GPUs the folder also stores the results of XLA's
autotuning. It can be copied to another machine of the same kind.
"""

import os
import sys
from pathlib import Path

from elements_jax.user_cache import user_cache

MOST_BYTES = 2 * 2**30
"""Maximum size; the least recently used programs are deleted. Stable Diffusion's largest have about 50 MB."""
LEAST_SECONDS = 0.1
"""Programs that compile faster than this are not kept."""


def keep_programs() -> None:
    """Turn on JAX's persistent compilation cache for this process and its children.

    Several processes can share the folder. Does nothing if the folder cannot be created.
    """
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or user_cache() / "programs")
    if "://" not in str(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_unfinished(folder)
        except OSError:
            return
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": MOST_BYTES,
        "jax_persistent_cache_min_compile_time_secs": LEAST_SECONDS,
    }
    for name, value in settings.items():
        if name.upper() in os.environ:
            continue
        os.environ[name.upper()] = str(value)  # JAX reads it when it is imported
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


def _remove_unfinished(folder: Path) -> None:
    """Remove files of a process killed while writing: JAX writes a program first, then its time of use.

    JAX would neither read nor replace such a program, and without the second file it would stop deleting old ones.
    """
    unfinished = [path for path in folder.glob("*-cache") if not path.with_name(f"{path.name[:-6]}-atime").exists()]
    if unfinished:
        from filelock import FileLock

        with FileLock(folder / ".lockfile", timeout=10):  # JAX's own lock: another process may be writing
            for path in unfinished:
                if not path.with_name(f"{path.name[:-6]}-atime").exists():
                    path.unlink(missing_ok=True)
