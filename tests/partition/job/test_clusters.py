"""Ray and Spark write the bytes of the local engine, also if a worker or the complete job is killed in the middle.

The clusters are real, and all on this machine: three raylets, or two executors of Spark.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from elements_jax.scenes.drawn import write_folder
from partition.__main__ import main
from tests.helpers.jobs import SMALL, contents

IMAGES, SHARDS = 60, 15
ARGUMENTS = [*SMALL[:-2], "--segmenter", "slic", "--shard-size", "4", "--held-out", "0.3"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_folder(folder, range(IMAGES), 64)
    return folder


@pytest.fixture(scope="module")
def local(photos: Path) -> dict[str, bytes]:
    """The local engine's output."""
    out = photos.parent / "local"
    assert main([str(photos), str(out), *ARGUMENTS, "--workers", "1"]) == 0
    return contents(out)


def start(photos: Path, out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "partition", str(photos), str(out), *ARGUMENTS, *more]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **output)


def wait_for(ready: Callable[[], bool], job: subprocess.Popen) -> None:
    """Wait until some shards are finished, while the job runs."""
    deadline = time.monotonic() + 120
    while not ready():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes(chosen: Callable[[dict[str, int], str], bool]) -> list[int]:
    """Return running processes, selected by parent, session and command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, _, fields = (folder / "stat").read_text().rpartition(") ")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        state, parent, _, session, *_ = fields.split()
        if state != "Z" and chosen({"ppid": int(parent), "session": int(session)}, command):
            found.append(int(folder.name))
    return found


def finished(out: Path) -> int:
    return len(list((out / "manifest").glob("train-*.jsonl")))


def succeed(job: subprocess.Popen) -> str:
    """Return a job's output; fail if the job did."""
    printed, _ = job.communicate(timeout=300)
    assert job.returncode == 0, printed
    return printed


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """Three raylets: one for the drivers, and two with one CPU each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80_000_000}
    head = {"num_cpus": 0, "include_dashboard": False, **memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, **memory)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_loses_nothing_with_a_node_or_the_driver(
    ray_cluster: Any, photos: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    address = ["--engine", "ray", "--address", ray_cluster.address]

    undisturbed = tmp_path / "undisturbed"
    succeed(start(photos, undisturbed, *address))
    assert contents(undisturbed) == local

    # Kill the driver: the rerun processes the missing shards.
    out = tmp_path / "driver"
    job = start(photos, out, *address)
    wait_for(lambda: finished(out) >= 3, job)
    job.kill()
    job.communicate()
    assert finished(out) < SHARDS
    printed = succeed(start(photos, out, *address))
    assert f"of {SHARDS} shards are already done" in printed
    assert contents(out) == local

    # Kill a node, stopped first so that it holds a shard: the other node processes the rest, and then this shard too.
    out = tmp_path / "node"
    job = start(photos, out, *address)
    wait_for(lambda: finished(out) >= 3, job)
    node = ray_cluster.list_all_nodes()[-1]
    raylet = node.all_processes["raylet"][0].process.pid
    (worker,) = processes(lambda status, command: status["ppid"] == raylet and command.startswith("ray::Worker"))
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: finished(out) == SHARDS - 1, job)
    ray_cluster.remove_node(node, allow_graceful=False)
    os.kill(worker, signal.SIGKILL)  # which would have ended with its raylet
    assert "is retried: its worker was lost" in succeed(job)
    assert contents(out) == local


@pytest.mark.slow
def test_spark_loses_nothing_with_an_executor(photos: Path, local: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("no Java (apt install default-jre-headless)")
    out = tmp_path / "out"
    job = start(photos, out, "--engine", "spark", "--master", "local-cluster[2,1,1024]")
    wait_for(lambda: finished(out) >= 3, job)

    def is_executor(status: dict[str, int], command: str) -> bool:
        return status["session"] == job.pid and "CoarseGrainedExecutorBackend" in command

    executors = processes(is_executor)
    assert len(executors) == 2
    os.kill(executors[0], signal.SIGSTOP)  # so that it holds a shard
    wait_for(lambda: finished(out) >= SHARDS - 1, job)
    os.kill(executors[0], signal.SIGKILL)
    assert "Lost executor" in succeed(job)
    assert contents(out) == local


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_an_error_of_a_worker_is_one_line(engine: str, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip({"ray": "ray", "spark": "pyspark"}[engine])
    weights = tmp_path / "sam.pt"
    weights.write_bytes(b"no checkpoint")
    sam = ["--segmenter", "sam", "--checkpoint", str(weights), "--shard-size", "60"]
    job = start(photos, tmp_path / "out", "--engine", engine, *sam)
    printed, _ = job.communicate(timeout=200)
    assert job.returncode == 1
    assert f"\nerror: {weights}" in printed
    assert "Traceback" not in printed


def test_no_cluster_is_one_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    nowhere = ["--engine", "ray", "--address", "127.0.0.1:1"]
    assert main([str(photos), str(tmp_path / "out"), *ARGUMENTS, *nowhere]) == 1
    assert capsys.readouterr().err.startswith("error: --address 127.0.0.1:1: no Ray cluster answers there")
