"""Checkpoints: the state and the place in the data, saved and restored together as one orbax step."""

from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from train.stage import Tree
from train.state import State

DIFFERENCES_SHOWN = 5  # arrays that an error names


class Checkpoints:
    """The checkpoints of one run, written in the background; use as a context manager, which waits for the last."""

    def __init__(self, directory: Path, keep: int, keep_every: int | None = None):
        self.directory = directory
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, keep_period=keep_every),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "data": grain.checkpoint.CheckpointHandler()},
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def save(self, state: State, iterator: Any) -> None:
        """Save the state and the iterator that has given exactly the batches which led to it."""
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(iterator)
        )
        self._manager.save(int(state["step"]), args=arguments)

    def restore(self, like: State, iterator: Any) -> State | None:
        """The newest state, laid out as `like` (shapes with shardings), or None; sets `iterator` to its place.

        Raises ValueError that shows what differs where the checkpoint is of another model, optimiser or data set.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        saved, wanted = _shapes(self._manager.item_metadata(step)["state"]), _shapes(like)
        if odd := sorted(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name)):
            found = [
                f"{name}: expected {wanted.get(name)}, found {saved.get(name)}" for name in odd[:DIFFERENCES_SHOWN]
            ]
            raise ValueError(
                f"{self.directory}: step {step} is of another model or optimiser; {len(odd)} arrays differ:\n  "
                + "\n  ".join(found)
            )
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), data=grain.checkpoint.CheckpointRestore(iterator)
        )
        try:
            return self._manager.restore(step, args=arguments)["state"]
        except ValueError as error:
            raise ValueError(f"{self.directory}: step {step} is of another data set or its workers: {error}") from error


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
