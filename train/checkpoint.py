"""Checkpoints: the state and the place in the data, saved and restored together as one orbax step.

A step's folder is complete when its commit file exists, which is written last; a folder without it is ignored, on any
file system. Neither state nor place depends on the mesh, the number of hosts or the number of workers:
`Checkpoints.restore` reads the state straight into the shardings of another mesh.
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

FOLDER = "checkpoints"  # in a run's folder
DIFFERENCES_SHOWN = 5  # arrays named in an error

StreamPosition = dict[str, Any]
"""The place in the stream of examples, as JSON: `examples`, the number of examples before it; `records`, `identity` and
`folders` of the data (`stored.describe`); the `seed`; and the `settings` of the training."""
_STREAM = ("records", "identity", "seed")
"""Fields that must be the same when a run resumes."""


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
        # A failed save is not reported twice.
        with _quiet(), contextlib.suppress(*([] if kind is None else [Exception])):
            self._manager.close()

    def save(self, state: State, place: StreamPosition) -> None:
        """Save the state and the place directly after the examples that led to it, with checksums of both.

        Returns when the step is on disk. Raises OSError naming the folder and the step.
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
        """Read (state, place) of a step, by default the newest, onto any mesh; None if no step is complete.

        Args:
            like: shapes and shardings of the state.
            stream: the run's place without its `examples`; the checkpoint must have the same records and seed.

        Raises ValueError showing the differences if the checkpoint belongs to another model, optimiser or data set, and
        ValueError if it is damaged.
        """
        if step is None:
            step = self._manager.latest_step()
        if step not in self._manager.all_steps():
            return None
        try:
            place = self._manager.restore(step, args=ocp.args.Composite(place=ocp.args.JsonRestore()))["place"]
            place["examples"]  # without it the file is incomplete
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
    """Read (state, place) of another run, from a step's folder, or the newest step of a run's folder.

    Raises ValueError as `Checkpoints.restore` does, and if there is no checkpoint.
    """
    is_step = source.name.isdigit() and source.parent.name == FOLDER
    run, step = (source.parent.parent, int(source.name)) if is_step else (source, None)
    if not (run / FOLDER).is_dir():
        raise ValueError(f"{source}: expected a run's folder, which has {FOLDER}/, or one of a step in it")
    with Checkpoints(run) as checkpoints:
        found = checkpoints.restore(like, stream, step)
    if found is None:
        raise ValueError(f"{source}: there is no complete checkpoint")
    return found


def require_same(
    where: str,
    expected: dict[str, tuple[int, ...]],
    found: dict[str, tuple[int, ...]],
    stream: StreamPosition,
    place: StreamPosition,
) -> None:
    """Raise ValueError showing the differences if a state has other arrays than expected, or its place is in another
    stream of examples."""
    # Older checkpoints have no `identity`.
    compared = [name for name in _STREAM if name in stream and name in place]
    if data := _differences({name: stream[name] for name in compared}, {name: place[name] for name in compared}):
        here, there = (", ".join(of.get("folders", ["?"])) for of in (stream, place))
        what = f"data set, or another order of it: {here} here, {there} there"
    elif arrays := _differences(expected, found):
        what = f"model or optimiser; {len(arrays)} arrays differ"
    else:
        return
    raise ValueError("\n  ".join([f"{where} belongs to another {what}:", *(data or arrays)[:DIFFERENCES_SHOWN]]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence orbax: after a failure each of its threads would report every array."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        gc.collect()  # asyncio reports unretrieved errors when their tasks are collected
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@jax.jit
def _checksums(arrays: dict[str, Array]) -> dict[str, UInt32[Array, ""]]:
    """Compute a checksum of each array's bits on the devices that hold it; it does not depend on the mesh."""
    return jax.tree.map(_bit_checksum, arrays)


def _bit_checksum(array: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    """Sum the array's words, each times its own odd number, modulo 2**32.

    A difference in one word always changes it, since odd numbers have inverses.
    """
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}")).astype(jnp.uint32)
    place, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= array.shape[axis]
    return jnp.sum(bits * (place * jnp.uint32(0x9E3779B1) | jnp.uint32(1)), dtype=jnp.uint32)


def _checksum(place: StreamPosition) -> str:
    """Checksum of the place; the order of its fields does not matter."""
    return google_crc32c.Checksum(json.dumps(place, sort_keys=True).encode()).digest().hex()


def named(tree: Tree) -> dict[str, Any]:
    """Return the leaves of a tree by their paths."""
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
