"""The cost of an engine: small photographs segmented by SLIC on this machine, locally, on Ray and on Spark.

    RAY_worker_niceness=0 ray start --head --num-cpus 1
    python -m tests.benchmarks.segmentation.engines --images 10000
    ray stop

Each engine has one worker, so that what differs is the engine. The runs take turns. Since other work on the machine
only adds, of each engine the quickest run counts, and of the times from one shard to the next the lower quartile
over all runs. `start` is from the command to the end of the first shard, and `added` a shard's time above the local
one's. Ray would give its workers a lower priority than other engines have. Its cluster runs already, as it would
elsewhere; without one, Ray starts one for each run, whose own processes then start beside the job.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import tyro

from elements_jax.scenes.drawn import write_folder

ENGINES = {
    "local": ["--workers", "1"],
    "ray": ["--engine", "ray", "--actors", "1", "--workers", "1"],
    "spark": ["--engine", "spark", "--master", "local-cluster[1,1,1024]"],
}


def times(photos: Path, out: Path, arguments: list[str]) -> list[float]:
    """Return the seconds from the start of a job to each of its shards, and to its end."""
    settings = ["--size", "64", "--grid", "8", "--segmenter", "slic", *arguments]
    begun = time.time()
    command = [sys.executable, "-m", "partition", str(photos), str(out), *settings]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    ended = time.time()
    shards = sorted(path.stat().st_mtime - begun for path in (out / "manifest").iterdir())
    return [*shards, ended - begun]


def main(
    images: int = 10_000, shard_size: int = 100, rounds: int = 2, engines: tuple[str, ...] = tuple(ENGINES)
) -> None:
    """Print a table.

    Args:
        images: Number of small photographs (scenes of 64 px).
        shard_size: Photographs in a shard.
        rounds: Runs of each engine, in turn.
        engines: Some of local, ray and spark; the others are compared with local.
    """
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        write_folder(photos, range(images), 64)
        measured: dict[str, list[list[float]]] = {name: [] for name in engines}
        for number in range(rounds):
            for name in engines:
                out = Path(folder, f"{name}-{number}")
                measured[name].append(times(photos, out, [*ENGINES[name], "--shard-size", str(shard_size)]))
                print(
                    json.dumps({name: [round(value, 2) for value in measured[name][-1][:1] + measured[name][-1][-2:]]})
                )
        total = {name: min(run[-1] for run in runs) for name, runs in measured.items()}
        start = {name: min(run[0] for run in runs) for name, runs in measured.items()}
        shard = {
            name: statistics.quantiles(later - before for run in runs for before, later in pairwise(run[:-1]))[0]
            for name, runs in measured.items()
        }
        print("| engine | total, s | against local | start, s | a shard, ms | against local | added, ms |")
        print("|---|---|---|---|---|---|---|")
        for name in engines:
            print(
                f"| {name} | {total[name]:.1f} | {total[name] / total['local']:.2f}x | {start[name]:.1f} "
                f"| {1000 * shard[name]:.0f} | {shard[name] / shard['local']:.2f}x "
                f"| {1000 * (shard[name] - shard['local']):.0f} |"
            )


if __name__ == "__main__":
    tyro.cli(main)
