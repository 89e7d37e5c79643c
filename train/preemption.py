"""Notice of the end: SIGTERM, which cloud machines get some seconds before they are taken away; and Ctrl-C."""

import signal
from types import FrameType
from typing import ClassVar

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Tells whether this run was asked to end; use as a context manager, in the main thread."""

    ended: ClassVar[int] = 0
    """The signal by which the last run of this process was asked to end, or 0."""

    def __enter__(self) -> "Preemption":
        self._noticed = Preemption.ended = 0
        self._alone = jax.process_count() == 1
        self._before = {}
        if self._alone:  # on several hosts JAX listens for the signal, and a handler of ours would deafen it
            self._before = {number: signal.signal(number, self._notice) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, step: int) -> bool:
        """Whether to end after this step, to be asked after every one.

        Hosts get the same answer at the same step, whichever of them the signal reaches.
        """
        if self._alone:
            Preemption.ended = self._noticed
        elif multihost_utils.reached_preemption_sync_point(step):
            Preemption.ended = signal.SIGTERM
        return Preemption.ended != 0

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self._noticed == number == signal.SIGINT:  # whoever asks twice does not want to wait
            raise KeyboardInterrupt
        self._noticed = number
