"""Process shards on a Spark cluster: `mapPartitions` over their numbers.

A task processes one shard. Spark reuses Python processes between tasks, and they keep their segmenter. Every executor
must see the source, the checkpoint and OUT under the same name.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from partition.job.job import Job
from partition.job.worker import ShardWorker

_kept: dict[str, ShardWorker] = {}
"""The worker of this process, under the name of the Spark application and its job."""


def run_on_spark(job: Job, numbers: Sequence[int]) -> None:
    """Process shards on the Spark cluster at `job.master`. Spark retries failed and lost tasks.

    Finished shards stay, whatever error this raises.

    Raises:
        ValueError: if Spark is not installed, no cluster answers, or a worker raised it.
        ChildProcessError: if Spark gave up a shard.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark import SparkConf, SparkContext
        from pyspark.errors import PySparkException
    except ImportError as error:
        raise ValueError("--engine spark needs Spark: pip install 'elements-jax[spark]', and Java 17") from error
    if (job.master or "local").startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # not the system's python3
    # A session, for SQL, would take several seconds more to start.
    settings = SparkConf().setAppName("elements partition").set("spark.ui.showConsoleProgress", "true")
    try:
        context = SparkContext.getOrCreate(settings.setMaster(job.master) if job.master else settings)
    except (Py4JError, PySparkException, OSError) as error:
        raise ValueError(f"--master {job.master}: Spark does not start: {_last_line(error)}") from error
    shared = context.broadcast((f"{context.applicationId} {job.out}", job, Path.cwd()))
    try:
        # One task per shard: an executor that is lost loses only its current shard.
        tasks = context.parallelize(numbers, len(numbers)).mapPartitions(partial(_run, shared))
        errors = tasks.collect()
    except (Py4JError, PySparkException) as error:
        raise ChildProcessError(f"Spark gave up a shard: {_last_line(error)}") from error
    finally:
        context.setLogLevel("OFF")  # Spark logs the end of executors as errors
        context.stop()
    if errors:
        raise errors[0]


def _run(shared: Any, numbers: Iterable[int]) -> Iterator[ValueError]:
    """Process shards in a Python process of an executor. Yield errors that a retry would repeat, so Spark does not
    retry."""
    name, job, folder = shared.value
    with suppress(FileNotFoundError):
        os.chdir(folder)  # the driver's folder, from which relative paths start
    try:
        if name not in _kept:
            _kept[name] = ShardWorker(job, _device(job), job.workers or 1)
        for number in numbers:
            _kept[name].run(number)
    except ValueError as error:
        yield error


def _device(job: Job) -> str:
    if job.devices or not job.uses_sam:
        return (job.devices or ("cpu",))[0]
    import torch
    from pyspark import TaskContext

    task = TaskContext.get()
    assigned = task.resources().get("gpu") if task else None
    if assigned:
        return f"cuda:{assigned.addresses[0]}"
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _last_line(error: Any) -> str:
    """Return the error of a Python worker from Java's long message, or else the message's first line."""
    text = str(error)
    raised = re.findall(r"^\s*(?:[\w.]+\.)?(\w+(?:Error|Exception): .+)$", text, re.MULTILINE)
    return raised[0] if raised else text.strip().partition("\n")[0]
