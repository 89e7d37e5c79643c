"""Timing for machines whose speed drifts: candidates take turns, and only the ratio within a turn counts."""

import statistics
import time
from collections.abc import Callable

import jax


def ratio(ours: Callable[[], object], theirs: Callable[[], object], turns: int = 7) -> tuple[float, float, float]:
    """Return median seconds of both, and the median of theirs / ours: above 1, ours is faster. The first call
    compiles."""

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        jax.block_until_ready(run())
        return time.perf_counter() - start

    seconds(ours), seconds(theirs)
    times = [(seconds(ours), seconds(theirs)) for _ in range(turns)]
    mine, other = zip(*times, strict=True)
    return statistics.median(mine), statistics.median(other), statistics.median(b / a for a, b in times)
