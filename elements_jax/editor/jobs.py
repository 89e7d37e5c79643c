"""Jobs: a queue of edits that are decoded one by one, and whose results are kept for a while.

Everything runs on the event loop's thread, so that nothing needs a lock; only decoding has a separate thread. A job
changes at every step and notifies its listeners.
"""

import asyncio
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from elements_jax.editing.script import EditScript
from elements_jax.editor.wire import JobState, Status
from elements_jax.pipeline.session import Cancelled

log = logging.getLogger(__name__)

KEPT = 100
KEPT_BYTES = 256 * 2**20
"""Maximum number of finished jobs, and bytes of their results; beyond that the oldest are forgotten."""
LONGEST_ERROR = 1000


Work = Callable[[EditScript, Callable[[], bool]], bytes]
"""Makes a result's file from the script with its seed and a function to call before each step."""


class Full(Exception):
    """The queue is full; contains the seconds after which to retry."""

    def __init__(self, seconds: int):
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """An edit to decode with several seeds, and its state."""

    work: Work | None  # None after the end
    script: EditScript
    variants: int
    steps: int
    suffix: str = "png"  # suffix of the results' format
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    status: Status = "queued"
    step: int = 0  # the current one, from 1; 0 while the sampler is compiled
    results: list[bytes] = field(default_factory=list)
    error: str | None = None
    listeners: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # replaced after each change

    @property
    def ended(self) -> bool:
        """Whether the job has finished, failed or been cancelled."""
        return self.status not in ("queued", "running")

    @property
    def bytes(self) -> int:
        """Size of its results in bytes."""
        return sum(map(len, self.results))

    def tell(self) -> None:
        """Wake everything that waits for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Jobs:
    """The queue, the thread that decodes, and the results."""

    def __init__(self, most_queued: int):
        self._most_queued = most_queued
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: list[Job] = []
        self._arrived = asyncio.Event()
        self._running: Job | None = None
        self._seconds = 1.0  # duration of the last job
        self._thread = ThreadPoolExecutor(1, "decode")

    def __getitem__(self, id: str) -> Job:
        """Return a job. Raises KeyError if it is unknown or forgotten."""
        return self._jobs[id]

    def state(self, job: Job) -> JobState:
        """Return the job's state for the API."""
        return JobState(
            id=job.id,
            status=job.status,
            position=self._queue.index(job) + (self._running is not None) if job.status == "queued" else 0,
            variant=len(job.results),
            variants=job.variants,
            step=job.step,
            steps=job.steps,
            results=[f"/api/jobs/{job.id}/{k}.{job.suffix}" for k in range(len(job.results))],
            error=job.error,
        )

    def require_room(self) -> None:
        """Raise Full if no job can be queued."""
        if len(self._queue) >= self._most_queued:
            raise Full(math.ceil(self._seconds))

    def submit(self, job: Job) -> None:
        """Queue a job. Raises Full."""
        self.require_room()
        self._jobs[job.id] = job
        self._queue.append(job)
        self._arrived.set()

    def cancel(self, job: Job) -> None:
        """Cancel a job, unless it has ended. A running job stops before its next step."""
        if job.status == "queued":
            self._queue.remove(job)
            self._tell_queued()
        if not job.ended:
            self._end(job, "cancelled")

    @contextmanager
    def listening(self, job: Job) -> Iterator[None]:
        """Register a listener of a job, which is cancelled when the last listener leaves."""
        job.listeners += 1
        try:
            yield
        finally:
            job.listeners -= 1
            if not job.listeners:
                self.cancel(job)

    async def states(self, job: Job) -> AsyncIterator[JobState]:
        """Yield the job's state now and at each change, until it ends. Slow listeners miss some."""
        ended = False
        while not ended:
            changed, ended = job.changed, job.ended  # read before yielding, during which the job may change
            yield self.state(job)
            if not ended:
                await changed.wait()

    async def run(self, warm_up: Callable[[], object]) -> None:
        """Warm up, then decode job after job until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            try:
                await self._loop.run_in_executor(self._thread, warm_up)
            except Exception:
                log.exception("the warm-up failed")
            while True:
                while not self._queue:
                    self._arrived.clear()
                    await self._arrived.wait()
                self._running = self._queue.pop(0)
                self._tell_queued()
                await self._run(self._running)
                self._running = None
        finally:
            for job in [job for job in self._jobs.values() if not job.ended]:
                self.cancel(job)
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, job: Job) -> None:
        """Decode one job. An error ends only this job."""
        started, work = time.monotonic(), job.work
        assert work is not None
        job.status = "running"
        job.tell()
        try:
            for k in range(job.variants):
                script = replace(job.script, seed=job.script.seed + k)
                png = await self._loop.run_in_executor(self._thread, self._decode, job, work, script)
                if job.ended:
                    return
                job.results.append(png)
                job.step = 0
                job.tell()
            self._end(job, "done")
        except Cancelled:
            pass
        except ValueError as error:
            self._end(job, "failed", str(error))
        except Exception as error:
            log.exception("job %s failed", job.id)
            self._end(job, "failed", f"decoding failed: {type(error).__name__}: {_first_line(error)}")
        self._seconds = time.monotonic() - started

    def _decode(self, job: Job, work: Work, script: EditScript) -> bytes:
        """Decode, on the decoder's thread."""

        def report() -> bool:
            if not job.ended:
                self._loop.call_soon_threadsafe(self._step, job)
            return not job.ended

        return work(script, report)

    def _step(self, job: Job) -> None:
        job.step = job.step % job.steps + 1  # each window of a photograph is sampled
        job.tell()

    def _end(self, job: Job, status: Status, error: str | None = None) -> None:
        if job.ended:
            return
        job.status, job.error, job.work = status, error, None
        job.tell()
        self._forget()

    def _tell_queued(self) -> None:
        """Notify queued jobs of their new positions."""
        for job in self._queue:
            job.tell()

    def _forget(self) -> None:
        """Forget the oldest finished jobs if they or their results are too many."""
        ended = [job for job in self._jobs.values() if job.ended]
        size = sum(job.bytes for job in ended)
        for number, job in enumerate(ended[:-1]):
            if len(ended) - number <= KEPT and size <= KEPT_BYTES:
                return
            size -= job.bytes
            del self._jobs[job.id]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:LONGEST_ERROR]
