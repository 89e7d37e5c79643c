"""Checkpoints: the state and the place in the data, saved and restored together as one orbax step."""

from pathlib import Path
from typing import Any

import grain
import orbax.checkpoint as ocp

from train.state import State


class Checkpoints:
    """The checkpoints of one run, written in the background; use as a context manager, which waits for the last."""

    def __init__(self, directory: Path, keep: int):
        self.directory = directory
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

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

        Raises ValueError where the checkpoint is of another model or optimiser.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), data=grain.checkpoint.CheckpointRestore(iterator)
        )
        try:
            return self._manager.restore(step, args=arguments)["state"]
        except ValueError as error:
            raise ValueError(
                f"{self.directory}: step {step} is of another model, optimiser or data set: {error}"
            ) from error
