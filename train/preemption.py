"""Stop cleanly on SIGTERM, which cloud machines get some seconds before preemption, and on Ctrl-C."""

import signal
from types import FrameType
from typing import ClassVar

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Tells whether this run was asked to stop; use as a context manager, in the main thread."""

    ended: ClassVar[int] = 0
    """The signal that asked the last run of this process to stop, or 0."""

    def __enter__(self) -> "Preemption":
        self._noticed = Preemption.ended = 0
        self._alone = jax.process_count() == 1
        self._before = {}
        if self._alone:  # on several hosts JAX handles the signal itself
            self._before = {number: signal.signal(number, self._notice) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, step: int) -> bool:
        """Return whether to stop after this step; call it after every step.

        All hosts get the same answer at the same step, whichever host received the signal.
        """
        if self._alone:
            Preemption.ended = self._noticed
        elif multihost_utils.reached_preemption_sync_point(step):
            Preemption.ended = signal.SIGTERM
        return Preemption.ended != 0

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self._noticed == number == signal.SIGINT:  # a second Ctrl-C stops at once
            raise KeyboardInterrupt
        self._noticed = number
