"""Notice of the end: SIGTERM, which cloud machines get some seconds before they are taken away."""

import signal
from types import FrameType
from typing import ClassVar

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Tells whether this run was asked to end; use as a context manager, in the main thread."""

    ended: ClassVar[bool] = False
    """Whether the last run of this process ended because it was asked to."""

    def __enter__(self) -> "Preemption":
        self._noticed = Preemption.ended = False
        self._alone = jax.process_count() == 1
        if self._alone:  # on several hosts JAX listens for the signal, and a handler of ours would deafen it
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._alone:
            signal.signal(signal.SIGTERM, self._before)

    def __call__(self, step: int) -> bool:
        """Whether to end after this step, to be asked after every one.

        Hosts get the same answer at the same step, whichever of them the signal reaches.
        """
        Preemption.ended = self._noticed if self._alone else multihost_utils.reached_preemption_sync_point(step)
        return Preemption.ended

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._noticed = True
