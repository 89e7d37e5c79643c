"""Training by the clock: a run that ends in time, for accelerators that are rented by the minute."""

import time

import numpy as np
from jaxtyping import Array, Float

from elements_jax.parallel import hosts

MEASURED_AT = 0.25
"""Share of the time after which samples, checkpoint and export are made at the latest, so that it is known how long
they take."""
MARGIN = 1.2
"""How many times that long they may take at the end."""
STEPS = 3
"""Steps that pass, at most, between reading the clock for one and ending because of it."""


class Clock:
    """The share of a run's time that has passed. Of several hosts the first one's clock counts, for all.

    The share travels with each step: hosts learn it from what the step returns, the same at the same step, and need not
    wait for each other.
    """

    def __init__(self, minutes: float, began: float):
        """`began` is when the command did, by `time.monotonic`."""
        self._end = began + 60 * minutes
        self._start = self._read_at = time.monotonic()
        self._step = self._reserve = 0.0
        self._measured = False
        self._unread: Float[Array, ""] | None = None
        self._share = 0.0

    def start(self) -> None:
        """Training begins: what has been compiled until now is not part of the schedule."""
        self._start = self._read_at = time.monotonic()

    def elapsed(self, devices: int) -> Float[np.ndarray, " devices"]:
        """The share of the time for training that has passed, at most 1: an argument of the next step.

        It is given once for each of this host's devices. Other hosts than the first give zeros, so that the maximum
        over all devices is the first host's.
        """
        now = time.monotonic()
        self._step, self._read_at = now - self._read_at, now
        available = self._end - self._reserve - STEPS * self._step - self._start
        share = min((now - self._start) / available, 1.0) if available > 0 else 1.0
        return np.full(devices, share if hosts.is_main_process() else 0, np.float32)

    def read(self, elapsed: Float[Array, ""]) -> None:
        """Take in the share of a step that has been started; the answers below are by the one before, which is done."""
        if self._unread is not None:
            self._share = float(self._unread)
        self._unread = elapsed

    @property
    def over(self) -> bool:
        """Whether to end."""
        return self._share >= 1

    @property
    def must_measure(self) -> bool:
        """Whether to find out now how long the end takes."""
        return self._share >= MEASURED_AT and not self._measured

    def took(self, seconds: float) -> None:
        """Samples, checkpoint and export took so long; time is left for that at the end."""
        self._reserve, self._measured = MARGIN * seconds, True
        self._read_at = time.monotonic()  # it was no part of a step
