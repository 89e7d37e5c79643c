"""Compiled programs on disk: kept, found by another process, and absent if not wanted."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp
from jax import monitoring
from elements_jax.parallel.program_cache import keep_programs
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
keep_programs()
program = jax.jit(lambda x: sum(jnp.sin(x @ x * n).sum() for n in range(20)))
program(jnp.ones((16, 16)))
print(*[events.count(f"/jax/compilation_cache/{name}") for name in ("compile_requests_use_cache", "cache_hits")])
"""


def asked_and_found(folder, **environment: str) -> tuple[int, int]:
    """Return the numbers of programs that a process looked for, and found, in the cache."""
    inherited = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    given = {"XDG_CACHE_HOME": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=inherited | given, check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    asked, found = done.stdout.split()
    return int(asked), int(found)


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME is Linux's")
def test_a_second_process_compiles_nothing(tmp_path):
    asked, found = asked_and_found(tmp_path)
    assert asked > 0
    assert found == 0
    assert asked_and_found(tmp_path) == (asked, asked)
    assert list((tmp_path / "elements-jax" / "programs").glob("*-cache"))


def test_recompiles_a_program_that_was_written_incompletely(tmp_path):
    asked, _ = asked_and_found(tmp_path)
    programs = sorted((tmp_path / "elements-jax" / "programs").glob("*-cache"))
    programs[0].write_bytes(programs[0].read_bytes()[:100])
    programs[0].with_name(programs[0].name.replace("-cache", "-atime")).unlink()
    assert asked_and_found(tmp_path) == (asked, asked - 1)
    assert asked_and_found(tmp_path) == (asked, asked)


def test_jax_own_settings_win(tmp_path):
    own = tmp_path / "own"
    asked_and_found(tmp_path, JAX_COMPILATION_CACHE_DIR=str(own))
    assert list(own.glob("*-cache"))
    assert asked_and_found(tmp_path / "off", JAX_ENABLE_COMPILATION_CACHE="false") == (0, 0)
    assert not list((tmp_path / "off").rglob("*-cache"))


def test_the_least_used_programs_make_room(tmp_path):
    asked_and_found(tmp_path)
    folder = tmp_path / "elements-jax" / "programs"
    size = sum(path.stat().st_size for path in folder.glob("*-cache"))
    largest = max(path.stat().st_size for path in folder.glob("*-cache")) + 500  # they vary by some bytes
    small = tmp_path / "small"
    asked_and_found(tmp_path, JAX_COMPILATION_CACHE_DIR=str(small), JAX_COMPILATION_CACHE_MAX_SIZE=str(largest))
    assert 0 < sum(path.stat().st_size for path in small.glob("*-cache")) <= largest < size


def test_a_folder_that_cannot_be_made_is_not_an_error(tmp_path):
    (tmp_path / "elements-jax").write_text("a file")
    asked_and_found(tmp_path)
    assert asked_and_found(tmp_path)[1] == 0
