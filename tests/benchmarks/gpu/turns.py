"""Shared code of both sides: command line, waiting for the turn, and the clock."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

Measure = Callable[[], dict[str, Any]]


def run(prepare: Callable[[str, str, bool], Measure]) -> None:
    """Prepare a section, report it, wait for the signal, measure, and report the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("section")
    parser.add_argument("side")
    parser.add_argument("--rehearse", action="store_true")
    chosen = parser.parse_args()
    began = time.monotonic()
    try:
        measure = prepare(chosen.section, chosen.side, chosen.rehearse)
    except ImportError as error:
        return say({"missing": f"{error}: not installed here"})
    say({"preparing": time.monotonic() - began})
    input()
    say(measure())


def say(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), flush=True)


def timed(step: Callable[[], object], wait: Callable[[object], object], images: int, runs: int) -> dict[str, Any]:
    """Return the seconds of each run, one at a time, after a warm-up run."""
    wait(step())
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        wait(step())
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return {"seconds": [round(one, 5) for one in seconds], "median": median, "images_per_s": images / median}


def size_of(section: str) -> int:
    """Return the batch size, with which the name ends."""
    return int(section.rpartition("-")[2])
