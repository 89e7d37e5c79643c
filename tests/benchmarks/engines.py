"""The cost of an engine: small photographs segmented by SLIC on this machine, locally, on Ray and on Spark.

    ray start --head --num-cpus 1
    python -m tests.benchmarks.engines --images 10000
    ray stop

Each engine has one worker, so only the engine differs. The runs take turns, and the first shards of each are left out,
to separate starting from working. `start` is the time from the command to the first shard. Start Ray's cluster before,
as elsewhere; without one, Ray starts a cluster for each run, whose processes then start during the job.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
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
        start = {name: min(run[0] for run in runs) for name, runs in measured.items()}
        shard = {
            name: statistics.median((run[-2] - run[0]) / (len(run) - 2) for run in runs)
            for name, runs in measured.items()
        }
        print("| engine | start, s | a shard, ms | against local |")
        print("|---|---|---|---|")
        for name in engines:
            print(f"| {name} | {start[name]:.1f} | {1000 * shard[name]:.0f} | {shard[name] / shard['local']:.2f}x |")


if __name__ == "__main__":
    tyro.cli(main)
