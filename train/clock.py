"""Training by the clock: a run that ends in time, for accelerators that are rented by the minute."""

import time

import numpy as np
from jaxtyping import Array, Float

from elements_jax.parallel import hosts

MEASURED_AT = 0.25
"""Share of the time by which samples, checkpoint and export are made once, to measure how long they take."""
MARGIN = 1.2
"""Factor on that measurement that is reserved for the end."""
STEPS = 3
"""Most steps between reading the clock for a step and ending because of it."""


class Clock:
    """The share of a run's time that has passed. On several hosts, the first host's clock counts for all.

    The share is an argument and a result of each step, so all hosts read the same value at the same step without
    waiting for each other.
    """

    def __init__(self, minutes: float, began: float):
        """`began` is the `time.monotonic` at which the command started."""
        self._end = began + 60 * minutes
        self._start = self._read_at = time.monotonic()
        self._step = self._reserve = 0.0
        self._measured = False
        self._unread: Float[Array, ""] | None = None
        self._share = 0.0

    def start(self) -> None:
        """Start the schedule now: compilation before this is not part of it."""
        self._start = self._read_at = time.monotonic()

    def elapsed(self, devices: int) -> Float[np.ndarray, " devices"]:
        """Return the share of the training time that has passed, at most 1, as an argument of the next step.

        The result has one value for each of this host's devices. All hosts but the first return zeros, so the maximum
        over all devices is the first host's share.
        """
        now = time.monotonic()
        self._step, self._read_at = now - self._read_at, now
        available = self._end - self._reserve - STEPS * self._step - self._start
        share = min((now - self._start) / available, 1.0) if available > 0 else 1.0
        return np.full(devices, share if hosts.is_main_process() else 0, np.float32)

    def read(self, elapsed: Float[Array, ""]) -> None:
        """Accept the share of a step that was started; `over` and `must_measure` use the step before it, which is
        done."""
        if self._unread is not None:
            self._share = float(self._unread)
        self._unread = elapsed

    @property
    def over(self) -> bool:
        """Whether the run should end."""
        return self._share >= 1

    @property
    def must_measure(self) -> bool:
        """Whether to measure now how long the end takes."""
        return self._share >= MEASURED_AT and not self._measured

    def took(self, seconds: float) -> None:
        """Reserve time at the end for samples, checkpoint and export, which took this long."""
        self._reserve, self._measured = MARGIN * seconds, True
        self._read_at = time.monotonic()  # this time was not part of a step
