"""Process shards on a Ray cluster: an actor for each GPU keeps its segmenter and processes one shard at a time.

Only the job and the numbers of its shards travel between machines. Photographs are read, and records written, where
the actor runs, so every node must see the source, the checkpoint and OUT under the same name.
"""

import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from partition.job.job import Job
from partition.job.worker import ShardWorker

ATTEMPTS = 4
"""Most attempts at a shard before the job gives up, and most consecutive workers that fail to start."""
_SECONDS = 1.0
"""Seconds between two looks at the cluster, and between two reports of a worker."""


class Progress:
    """Counts the finished images of every shard: an actor next to the driver, to which the workers report."""

    def __init__(self) -> None:
        self._images: dict[int, int] = {}

    def report(self, number: int, images: int) -> None:
        """Set the finished images of a shard. A shard that is retried starts from 0."""
        self._images[number] = images

    def total(self) -> int:
        """Return the finished images of all shards."""
        return sum(self._images.values())


class Worker:
    """A `ShardWorker` in an actor."""

    def start(self, job: Job, folder: Path, processes: int, device: str, progress: Any) -> None:
        """Load the segmenter. Ray would hide an error of `__init__` in one of its own errors.

        Args:
            folder: the driver's folder, from which relative paths start.
        """
        with suppress(FileNotFoundError):
            os.chdir(folder)
        self.worker = ShardWorker(job, device, processes)
        self.progress = progress

    def run(self, number: int) -> None:
        """Process a shard."""
        images, reported = 0, time.monotonic()

        def count(more: int) -> None:
            nonlocal images, reported
            images += more
            if time.monotonic() - reported > _SECONDS:
                self.progress.report.remote(number, images)
                reported = time.monotonic()

        self.worker.run(number, count)
        self.progress.report.remote(number, images)


def run_on_ray(job: Job, numbers: Sequence[int]) -> None:
    """Process shards on the cluster at `job.address`, or on this machine if there is no cluster.

    A shard whose worker is lost goes to another worker. Finished shards stay, whatever error this raises.

    Raises:
        ValueError: if Ray is not installed, no cluster answers, or no node has room for a worker.
        ChildProcessError: if a shard lost `ATTEMPTS` workers, or workers do not start.
        OSError: if a worker could not read or write a file, `ATTEMPTS` times for the same shard.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("--engine ray needs Ray: pip install 'elements-jax[ray]'") from error
    _require_listener(job.address)
    try:
        ray.init(address=job.address, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(f"--address {job.address}: no Ray cluster answers there: {error}") from error
    counts = [job.shards[number].count for number in numbers]
    total = None if None in counts else sum(count or 0 for count in counts)
    try:
        with tqdm(total=total, desc="partition", unit="image", smoothing=0.05) as bar:
            _run(ray, job, numbers, bar)
    finally:
        ray.shutdown()


def _require_listener(address: str | None) -> None:
    """Raise ValueError if nothing listens at HOST:PORT. Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ValueError(f"--address {address}: no Ray cluster answers there: {error}") from error


def _run(ray: Any, job: Job, numbers: Sequence[int], bar: tqdm) -> None:
    cpus, gpus = _needs(job, _nodes(ray))
    if not _room(_nodes(ray), cpus, gpus) and job.actors is None:
        raise ValueError(f"no node of the Ray cluster has the {cpus} CPUs and {gpus} GPUs that a worker needs")
    make_actor = ray.remote(num_cpus=cpus, num_gpus=gpus)(Worker).remote
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), True)
    progress = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Progress).remote()
    shared = ray.put(job)  # once for each node
    device = "cuda:0" if gpus else "cpu"  # Ray shows an actor only its own GPU
    waiting, left, attempts, failed_starts = deque(numbers), len(numbers), Counter[int](), 0
    busy: dict[Any, tuple[Any, int | None]] = {}  # a running call: its actor and shard, or None while the actor starts
    while left:
        wanted = min(left, job.actors or max(1, _room(_nodes(ray), cpus, gpus)))  # nodes come and go
        for actor in [make_actor() for _ in range(len(busy), wanted)]:
            busy[actor.start.remote(shared, Path.cwd(), cpus, device, progress)] = actor, None
        for call in ray.wait(list(busy), timeout=_SECONDS)[0]:
            actor, number = busy.pop(call)
            try:
                ray.get(call)
            except ray.exceptions.RayError as error:
                ray.kill(actor)  # its processes may be broken; a new one takes its place
                cause = getattr(error, "cause", None)  # what the worker raised, if it was not lost
                if cause and not (number is not None and isinstance(cause, OSError | BrokenProcessPool)):
                    raise cause from error
                if number is None:
                    failed_starts += 1
                    if failed_starts == ATTEMPTS:
                        raise ChildProcessError(f"{ATTEMPTS} workers in a row did not start: {error}") from error
                    continue
                attempts[number] += 1
                name = job.shards[number].name
                if attempts[number] == ATTEMPTS:
                    lost = ChildProcessError(f"shard {name} lost {ATTEMPTS} workers, the last by: {error}")
                    raise (cause or lost) from error
                bar.write(f"shard {name} is retried: {cause or 'its worker was lost'}")
                waiting.appendleft(number)
                continue
            if number is None:
                failed_starts = 0
            else:
                left -= 1
            if waiting:
                number = waiting.popleft()
                busy[actor.run.remote(number)] = actor, number
        with suppress(ray.exceptions.RayError):  # its node may be lost; another one restarts it
            bar.update(ray.get(progress.total.remote()) - bar.n)


def _nodes(ray: Any) -> list[dict[str, float]]:
    """Return the resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _needs(job: Job, nodes: Sequence[dict[str, float]]) -> tuple[int, int]:
    """Return CPUs and GPUs of a worker: with SAM, a GPU if there is one, with its share of the node's CPUs."""
    shares = [int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU")]
    on_gpu = job.devices[0] != "cpu" if job.devices else bool(shares)
    if job.uses_sam and on_gpu:
        return job.workers or max(1, min(shares, default=1)), 1
    return job.workers or 1, 0


def _room(nodes: Sequence[dict[str, float]], cpus: int, gpus: int) -> int:
    """Return the number of workers that fit into the cluster."""
    return sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else float("inf"))) for node in nodes
    )
