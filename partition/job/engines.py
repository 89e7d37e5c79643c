"""Engines that process shards: the devices of this machine, one process each, or Apache Beam. Both call
`ShardWorker.run`."""

import multiprocessing
import shlex
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import Any

from tqdm import tqdm

from partition.job.job import Job
from partition.job.pool import end_with_parent
from partition.job.worker import ShardWorker

KILLED = (
    "a process of the job was killed, probably because memory ran out; run the same command again to resume (fewer "
    "--workers need less memory)"
)


def run_locally(job: Job, numbers: Sequence[int]) -> None:
    """Process shards on this machine.

    Raises ChildProcessError if a process was killed, and the errors of workers. Finished shards stay.
    """
    devices = job.devices or _all_devices(job)
    counts = [job.shards[number].count for number in numbers]
    total = None if None in counts else sum(count or 0 for count in counts)
    with tqdm(total=total, desc="partition", unit="image", smoothing=0.05) as bar:
        try:
            if len(devices) == 1:
                with ShardWorker(job, devices[0]) as worker:
                    for number in numbers:
                        worker.run(number, bar.update)
            else:
                _run_on_all(devices, job, numbers, bar)
        except BrokenProcessPool as error:
            raise ChildProcessError(KILLED) from error


def _run_on_all(devices: Sequence[str], job: Job, numbers: Sequence[int], bar: tqdm) -> None:
    context = multiprocessing.get_context("spawn")
    taken = context.Value("q", 0)
    processes, readers = [], list[Any]()
    for device in devices:
        reader, writer = context.Pipe(duplex=False)
        readers.append(reader)
        processes.append(context.Process(target=_serve, args=(device, job, numbers, taken, writer)))
        processes[-1].start()
        writer.close()  # so that the pipe ends with the process
    try:
        while readers:
            for reader in list[Any](wait(readers)):
                try:
                    message = reader.recv()
                except EOFError:
                    readers.remove(reader)
                    continue
                if isinstance(message, Exception):
                    raise message
                bar.update(message)
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise ChildProcessError(KILLED)
    finally:
        for process in processes:
            process.terminate()


def _serve(device: str, job: Job, numbers: Sequence[int], taken: Any, writer: Connection) -> None:
    """Process shards that no other process has taken, until none are left."""
    end_with_parent()
    try:
        with ShardWorker(job, device) as worker:
            while True:
                with taken.get_lock():
                    index = taken.value
                    taken.value += 1
                if index >= len(numbers):
                    break
                worker.run(numbers[index], writer.send)
    except Exception as error:
        writer.send(error)


def _all_devices(job: Job) -> Sequence[str]:
    if not job.uses_sam:
        return ("cpu",)
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ("cpu",)


def run_on_beam(job: Job, numbers: Sequence[int]) -> None:
    """Process shards on Apache Beam. Every worker must see source, checkpoint, masks and OUT.

    Raises ValueError if Beam is not installed, and the errors of the runner.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ValueError("--engine beam needs Apache Beam: pip install 'elements-jax[beam]'") from error

    class DoShard(beam.DoFn):
        """One worker per process, made once."""

        def setup(self) -> None:
            self.worker = ShardWorker(job, (job.devices or _all_devices(job))[0])

        def teardown(self) -> None:
            self.worker.__exit__()

        def process(self, number: int) -> None:
            self.worker.run(number)

    options = PipelineOptions([f"--runner={job.runner}", *shlex.split(job.runner_options)])
    with beam.Pipeline(options=options) as pipeline:
        # Without the reshuffle a runner may fuse all shards into one worker's bundle.
        _ = pipeline | beam.Create(numbers) | beam.Reshuffle() | beam.ParDo(DoShard())
