"""Progress messages for long operations."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm import tqdm

SOON = 1.0
"""Seconds after which a message is printed."""


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Print to stderr what is running, unless it finishes soon.

    A terminal shows one line that counts the seconds. Other outputs get a line now and one at the end.
    """
    ended, began, terminal, failed = threading.Event(), time.monotonic(), sys.stderr.isatty(), False

    def line() -> str:
        return f"{what}, {time.monotonic() - began:.0f} s"

    def show() -> None:
        if ended.wait(SOON):
            return
        if terminal:
            while not ended.wait(1 / 4):
                print(f"\r{line()}", end="", file=sys.stderr, flush=True)
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        else:
            print(f"{what} ...", file=sys.stderr, flush=True)
            ended.wait()
            if not failed:
                print(f"{line()}, done", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        failed = True
        raise
    finally:
        ended.set()
        thread.join()


@contextmanager
def sampling(steps: int | None, what: str, before: str = "compiling the sampler") -> Iterator[Callable[[], bool]]:
    """Show a progress bar of sampling steps; yields the function to call before each step.

    `before` describes the work before the first step. `steps` is None if their number is unknown.
    """
    with ExitStack() as compiling, ExitStack() as bars:
        compiling.enter_context(waiting(before))
        bar: tqdm | None = None

        def report() -> bool:
            nonlocal bar
            if bar is None:
                compiling.close()
                bar = bars.enter_context(tqdm(total=steps, desc=what, unit="step"))
            else:
                bar.update()
            return True

        yield report
        if bar is not None:
            bar.update()  # the last step is done
