"""Checkpoints: the state and the place in the data, saved and restored together as one orbax step.

A step's folder is whole when the file that ends it is there, which is written last; without it the folder counts for
nothing, on any file system. Neither state nor place depends on the mesh, the number of hosts, or that of the workers.
"""

import contextlib
import errno
import gc
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, Shaped, UInt32

from elements_jax.typing import Tree
from train.state import State

FOLDER = "checkpoints"  # in a run's
DIFFERENCES_SHOWN = 5  # arrays that an error names

StreamPosition = dict[str, Any]
"""`examples`, the number of those before the place, and what the stream of examples is: `records`, `identity`
and `folders` (`stored.describe`), `seed`; and the `settings` of the training. As JSON."""
_STREAM = ("records", "identity", "seed")
"""What must be the same where a run goes on."""


class Checkpoints:
    """The checkpoints of one run; use as a context manager."""

    def __init__(self, run: Path, keep: int | None = None, keep_every: int | None = None):
        self.directory = run / FOLDER
        atomicity = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
        self._manager = ocp.CheckpointManager(
            self.directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                keep_period=keep_every,
                atomicity_options=atomicity,
                single_host_load_and_broadcast=True,  # a shared folder may look different to hosts
            ),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "place": ocp.JsonCheckpointHandler()},
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # A save that failed is not told again.
        with _quiet(), contextlib.suppress(*([] if kind is None else [Exception])):
            self._manager.close()

    def save(self, state: State, place: StreamPosition) -> None:
        """Save the state and the place behind exactly the examples which led to it, with checksums of both.

        It is on the disk afterwards. Raises OSError naming the folder and the step.
        """
        step, size = int(state["step"]), sum(leaf.nbytes for leaf in named(state).values())
        if (free := shutil.disk_usage(self.directory).free) < size:
            have = f"it takes {size / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free"
            raise OSError(f"{self.directory}: step {step} is not saved: {have}")
        place = place | {"checksums": jax.tree.map(int, jax.device_get(_checksums(named(state))))}
        place["checksum"] = _checksum(place)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), place=ocp.args.JsonSave(place))
        try:
            with _quiet():
                self._manager.save(step, args=arguments)
                self._manager.wait_until_finished()
        except (OSError, ValueError) as error:  # tensorstore's are ValueErrors
            full = os.strerror(errno.ENOSPC)
            why = full if full in str(error) else str(error).partition("\n")[0]
            raise OSError(f"{self.directory}: step {step} is not saved: {why}") from error

    def restore(
        self, like: State, stream: StreamPosition, step: int | None = None
    ) -> tuple[State, StreamPosition] | None:
        """Read (state, place) of a step, by default the newest; None if no step is complete.

        Args:
            like: shapes and shardings of the state.
            stream: the run's place, but for its `examples`: of the same records and seed it must be.

        Raises ValueError that shows what differs where the checkpoint is of another model, optimiser or data set, and
        that says so where it is damaged.
        """
        if step is None:
            step = self._manager.latest_step()
        if step not in self._manager.all_steps():
            return None
        try:
            place = self._manager.restore(step, args=ocp.args.Composite(place=ocp.args.JsonRestore()))["place"]
            place["examples"]  # without it the file is not whole
            if place.pop("checksum", None) not in (None, _checksum(place)):  # older checkpoints have none
                raise ValueError("the place in the data is not as it was saved")
            if (metadata := self._manager.item_metadata(step)["state"]) is None:
                raise FileNotFoundError("it does not say what the state holds")
            shapes = _shapes(metadata)
        except Exception as error:  # orbax's and tensorstore's share no class
            raise self._damaged(step, error) from error
        require_same(f"{self.directory}: step {step}", _shapes(like), shapes, stream, place)
        try:
            arguments = ocp.args.Composite(state=ocp.args.StandardRestore(like))
            state = self._manager.restore(step, args=arguments)["state"]
            expected = place.pop("checksums", {})
            found = jax.device_get(_checksums({name: leaf for name, leaf in named(state).items() if name in expected}))
            if odd := [name for name, value in expected.items() if int(found[name]) != value]:
                raise ValueError(f"{len(odd)} arrays are not as they were saved, such as {odd[0]}")
            return state, place
        except Exception as error:
            raise self._damaged(step, error) from error

    def _damaged(self, step: int, error: Exception) -> ValueError:
        why = str(error).partition("\n")[0]
        before = [each for each in self._manager.all_steps() if each < step]
        then = (
            f"the run resumes from step {max(before)}" if before else "there is no step before it, so the run restarts"
        )
        return ValueError(f"{self.directory}: step {step} is damaged: {why}. Remove the folder {step}, and {then}")


def resume(source: Path, like: State, stream: StreamPosition) -> tuple[State, StreamPosition]:
    """(state, place) of another run: of a step's folder, or the newest of a run's.

    Raises ValueError as `Checkpoints.restore`, and where there is none.
    """
    is_step = source.name.isdigit() and source.parent.name == FOLDER
    run, step = (source.parent.parent, int(source.name)) if is_step else (source, None)
    if not (run / FOLDER).is_dir():
        raise ValueError(f"{source}: expected a run's folder, which has {FOLDER}/, or one of a step in it")
    with Checkpoints(run) as checkpoints:
        found = checkpoints.restore(like, stream, step)
    if found is None:
        raise ValueError(f"{source}: no whole checkpoint is there")
    return found


def require_same(
    where: str,
    expected: dict[str, tuple[int, ...]],
    found: dict[str, tuple[int, ...]],
    stream: StreamPosition,
    place: StreamPosition,
) -> None:
    """Raises ValueError that shows what differs where a state is of other arrays than expected, or its place is in
    another stream of examples."""
    # Checkpoints of before have no `identity`.
    compared = [name for name in _STREAM if name in stream and name in place]
    if data := _differences({name: stream[name] for name in compared}, {name: place[name] for name in compared}):
        here, there = (", ".join(of.get("folders", ["?"])) for of in (stream, place))
        what = f"data set, or order of it: {here} here, {there} there"
    elif arrays := _differences(expected, found):
        what = f"model or optimiser; {len(arrays)} arrays differ"
    else:
        return
    raise ValueError("\n  ".join([f"{where} is of another {what}:", *(data or arrays)[:DIFFERENCES_SHOWN]]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within it orbax says nothing: after a failure each of its threads would, once for every array."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        gc.collect()  # asyncio tells of errors that nobody has asked for when their tasks are collected
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@jax.jit
def _checksums(arrays: dict[str, Array]) -> dict[str, UInt32[Array, ""]]:
    """A checksum of each array's bits, computed where the array is, that does not depend on the mesh."""
    return jax.tree.map(_bit_checksum, arrays)


def _bit_checksum(array: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    """The sum of the array's words, each times an odd number of its own, modulo 2**32.

    A difference in one word always changes it, since odd numbers have inverses.
    """
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}")).astype(jnp.uint32)
    place, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= array.shape[axis]
    return jnp.sum(bits * (place * jnp.uint32(0x9E3779B1) | jnp.uint32(1)), dtype=jnp.uint32)


def _checksum(place: StreamPosition) -> str:
    """Of the place, whatever the order of its fields."""
    return google_crc32c.Checksum(json.dumps(place, sort_keys=True).encode()).digest().hex()


def named(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by the paths to them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in named(tree).items()}


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [
        f"{name}: expected {expected.get(name)}, found {found.get(name)}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
