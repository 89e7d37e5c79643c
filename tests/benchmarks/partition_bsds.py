"""Dropped pixels and seconds of the partition over the BSDS500 validation photographs, at the paper's settings.

    python tests/benchmarks/partition_bsds.py --images 20

The photographs are taken evenly from the split.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from partition.algorithm import assign_elements, query_grid
from partition.config import PartitionConfig
from partition.elements import Partition, partition_image
from partition.photos import read_photo
from partition.picture import draw_partition
from partition.sam import SamSegmenter, load_sam
from partition.sources import read_sample


@dataclass
class Clock:
    """Seconds spent in each part, wall clock."""

    embed: float = 0
    decode: float = 0
    assign: float = 0
    finish: float = 0


def timed(segmenter: SamSegmenter, image: np.ndarray, clock: Clock) -> Partition:
    """`partition_image`, with a clock. One iteration only, as in the paper."""
    ticks = [time.perf_counter()]
    embedding = segmenter.embed(image)
    ticks.append(time.perf_counter())
    s = segmenter.scores(embedding, query_grid(segmenter.config.grid))
    ticks.append(time.perf_counter())
    assignment = assign_elements(lambda _: s, image.shape[:2], segmenter.config).cpu().numpy()
    ticks.append(time.perf_counter())
    partition = partition_image(image, lambda _: assignment, segmenter.config)
    ticks.append(time.perf_counter())
    for part, seconds in zip(vars(clock), np.diff(ticks), strict=True):
        setattr(clock, part, getattr(clock, part) + seconds)
    return partition


def main(
    shared: Path = Path(os.environ.get("ELEMENTS_DATA", "../shared")),  # noqa: B008
    images: int = 20,
    config: PartitionConfig = PartitionConfig(),  # noqa: B008
    pictures: Path | None = None,
) -> None:
    """Partition some photographs and print what came of it.

    Args:
        shared: Folder with `weights/mobile_sam.pt` and `data/bsds500/images/val`; by default $ELEMENTS_DATA, or else
            ../shared.
        images: How many photographs.
        config: The partition's settings.
        pictures: Folder for pictures of the partitions.
    """
    folder = shared / "data" / "bsds500" / "images" / "val"
    paths = sorted(folder.glob("*.jpg"))
    paths = [paths[i * len(paths) // images] for i in range(images)]
    model, _ = load_sam(shared / "weights" / "mobile_sam.pt")
    segmenter, clock = SamSegmenter(model.to("cuda" if torch.cuda.is_available() else "cpu"), config), Clock()
    elements, dropped = [], []
    for path in paths:
        image = read_photo(read_sample(path, path.name), config.size).image
        partition = timed(segmenter, image, clock)
        elements.append(partition.valid.sum())
        dropped.append(100 * partition.dropped)
        print(f"{path.name}  elements {elements[-1]}  dropped {dropped[-1]:.3f} %", flush=True)
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            draw_partition(image, partition).save(pictures / f"{path.stem}.png")
    print(f"{images} images, {np.mean(elements):.1f} elements, {np.mean(dropped):.3f} % dropped on average", end=" ")
    print(f"(median {np.median(dropped):.3f} %, at most {np.max(dropped):.3f} %)")
    print("seconds an image: " + ", ".join(f"{part} {total / images:.2f}" for part, total in vars(clock).items()))


if __name__ == "__main__":
    tyro.cli(main)
