"""The cost of reading records at 512 px: images per second and core, and the cores that feed an accelerator.

python tests/benchmarks/input_pipeline.py [--images 4 --milliseconds 100]

Records are synthetic: a scene with a little noise as JPEG, a label map of 256 elements with rough borders, and the
scene's object masks; and the same with random numbers in place of the features of `elements cache`. The operating
system has them in memory, so the disk is not timed. Rates are per second of processor time, workers' included, so other
work on the machine hardly changes them. Then a pause simulates an accelerator, to see how long a run waits.
"""

import argparse
import resource
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from elements_jax.config import ModelConfig
from elements_jax.data.record import Record
from elements_jax.data.tfrecord import shard_path, write_tfrecord
from elements_jax.scenes.drawn import render, scene
from train.input.data import dataset

CONFIG = ModelConfig()
SIZE, GRID = CONFIG.elements.image_size, CONFIG.elements.grid
RECORDS, BATCH, SHORT, LONG = 24, 8, 4, 64


def rough(rng: np.random.Generator, side: int, height: float) -> np.ndarray:
    """Return random heights with bumps of `side` pixels."""
    coarse = rng.normal(0, height, (SIZE // side, SIZE // side)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def synthetic(seed: int, cached: bool) -> Record:
    """Make a record of a scene, under a partition into the cells of scattered points."""
    rng = np.random.default_rng(seed)
    described = scene(seed, SIZE)
    picture, shapes = render(described)
    image = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)

    cell = SIZE // GRID
    y, x = (pixels + rough(rng, 8, 3) for pixels in np.mgrid[:SIZE, :SIZE].astype(np.float32))
    rows, columns = (np.mgrid[:GRID, :GRID] + rng.uniform(0.2, 0.8, (2, GRID, GRID))).reshape(2, -1) * cell
    nearest, label_map = np.full((SIZE, SIZE), np.inf, np.float32), np.zeros((SIZE, SIZE), np.uint16)
    for number, (row, column) in enumerate(zip(rows, columns, strict=True)):
        distance = (y - row) ** 2 + (x - column) ** 2
        label_map[distance < nearest] = number
        np.minimum(nearest, distance, out=nearest)

    latent = CONFIG.latent_size**2 * CONFIG.vae.latent_channels
    numbers = {"latent_mean": latent, "latent_logvar": latent, "text": CONFIG.text.max_length * CONFIG.text.hidden_size}
    features = {name: rng.standard_normal(count).astype(np.float16) for name, count in numbers.items()}
    masks = np.stack([shapes == k + 1 for k in range(len(described.shapes))])
    return Record(
        image, label_map, described.caption, masks, str(seed), {"num_elements": GRID**2}, features if cached else {}
    )


class Reading(NamedTuple):
    """The time of reading some batches."""

    processor_seconds: float
    seconds: float
    waiting: float  # part of the seconds, waiting for the next batch


def read(folder: Path, cached: bool, workers: int, batches: int, size: int, pause: float = 0.0) -> Reading:
    """Read batches of `size` images, with a pause after each; do not time the first, for which readers start."""

    def used() -> float:  # workers count once they have ended
        usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before, waiting = used(), 0.0
    options = {"seed": 0, "shuffle": True, "tokenize": None, "cached": cached, "workers": workers}
    with closing(dataset(folder, "train", batch_size=size, **options)) as iterator:
        next(iterator)
        start = time.perf_counter()
        for _ in range(batches):
            asked = time.perf_counter()
            next(iterator)
            waiting += time.perf_counter() - asked
            time.sleep(pause)
        seconds = time.perf_counter() - start
    return Reading(used() - before, seconds, waiting)


def main() -> None:
    """Write the records and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4, help="that an accelerator takes in a step")
    parser.add_argument("--milliseconds", type=float, default=100, help="of a step")
    chosen = parser.parse_args()
    pause = chosen.milliseconds / 1000
    wanted = chosen.images / pause
    with tempfile.TemporaryDirectory() as folder:
        for cached in (False, True):
            records = Path(folder) / str(cached)
            records.mkdir()
            stored = [synthetic(seed, cached).to_example() for seed in range(RECORDS)]
            write_tfrecord(shard_path(records, "train", 0, 1), stored)
            name = "cached" if cached else "plain"
            print(f"{name}: {np.mean([len(data) for data in stored]) / 1e3:.0f} KB a record")
            for workers in (0, 2):
                # The difference excludes the cost of starting, and of batches that are read ahead but not used.
                short, long = (read(records, cached, workers, batches, BATCH) for batches in (SHORT, LONG))
                images = BATCH * (LONG - SHORT)
                rate = images / (long.processor_seconds - short.processor_seconds)
                played = read(records, cached, workers, LONG, chosen.images, pause)
                here = BATCH * LONG / long.seconds
                print(
                    f"  {workers} workers: {rate:.0f} images/s a core, {here:.0f} images/s here; "
                    f"an accelerator that takes {wanted:.0f} images/s needs {wanted / rate:.1f} cores; "
                    f"played, it waits {played.waiting / played.seconds:.1%} of the time",
                    flush=True,
                )


if __name__ == "__main__":
    main()
