"""Candidates in separate processes, so that their memory and libraries stay separate.

A candidate is a module whose `CASES` holds, by name, functions that build a model and return the function to time.
"""

import importlib
import multiprocessing
import re
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple


class Run(NamedTuple):
    """One run of a case."""

    seconds: float
    gigabytes: float  # peak memory of the process, including its model


class Worker:
    """A process that holds one case of a candidate and runs it when asked."""

    def __init__(self, candidate: str, case: str):
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, candidate, case))
        self._process.start()
        other_end.close()

    def run(self) -> Run:
        """Run the case once. Raises EOFError if the process died; it has printed why."""
        self._pipe.send("run")
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


class Comparison(NamedTuple):
    """Medians over the turns."""

    ours: Run
    theirs: Run
    ratio: float  # theirs / ours within a turn: above 1, ours is faster


def compare(candidates: tuple[str, str], case: str, turns: int, together: bool) -> Comparison:
    """Run ours and theirs in turn, each warm: on machines whose speed drifts, only the ratio within a turn counts.

    Args:
        together: whether both processes stay alive; otherwise each ends before the other starts.

    Raises EOFError if a process died; it has printed why.
    """
    if together:
        workers = [Worker(candidate, case) for candidate in candidates]
        try:
            for worker in workers:
                worker.run()
            runs = [tuple(worker.run() for worker in workers) for _ in range(turns)]
        finally:
            for worker in workers:
                worker.close()
    else:
        runs = [tuple(_alone(candidate, case) for candidate in candidates) for _ in range(turns)]
    mine, other = (Run(*map(statistics.median, zip(*side, strict=True))) for side in zip(*runs, strict=True))
    return Comparison(mine, other, statistics.median(b.seconds / a.seconds for a, b in runs))


def _alone(candidate: str, case: str) -> Run:
    worker = Worker(candidate, case)
    try:
        worker.run()
        return worker.run()
    finally:
        worker.close()


def _serve(pipe: Connection, candidate: str, case: str) -> None:
    run = importlib.import_module(candidate).CASES[case]()
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the current size
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        kilobytes = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        pipe.send(Run(seconds, int(kilobytes[1]) / 1e6))
