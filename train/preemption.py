"""Notice of the end: SIGTERM, which cloud machines get some seconds before they are taken away."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Tells whether this run was asked to end; use as a context manager, in the main thread."""

    def __enter__(self) -> "Preemption":
        self._noticed = False
        self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def __call__(self, step: int) -> bool:
        """Whether to end after this step; hosts, which the signal reaches at different times, get the same answer."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._noticed

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._noticed = True
