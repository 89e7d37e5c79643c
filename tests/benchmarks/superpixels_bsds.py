"""Elements of SAM, SLIC and a grid against what people drew, and the sweep over beta of the paper's Figure 15.

    python tests/benchmarks/superpixels_bsds.py --images 20

All divide the centre square of a BSDS500 photograph, at 512 px, into at most 256 elements; the truths are cropped
alike. A score is the mean over the people who drew an image, then over images, which are taken evenly from a split.
SLIC's compactness is chosen on train by boundary recall less under-segmentation error, as Stutz et al. 2018 choose
parameters.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

from partition.algorithm import assign_elements, query_grid
from partition.config import PartitionConfig
from partition.elements import Partition, partition_image
from partition.photos import crop_labels, read_photo
from partition.picture import draw_partition
from partition.sam import SamSegmenter, load_sam
from partition.scores import read_truths, score_partition
from partition.sources import read_sample
from partition.superpixels import Grid, Slic

PAPER = PartitionConfig()
BETAS = (4.0, 16.0, 64.0, 256.0, 1024.0)
COMPACTNESS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)


class Measures(NamedTuple):
    """Of one partition, or means over images."""

    boundary_recall: float
    undersegmentation_error: float
    achievable_accuracy: float
    compactness: float
    dropped_percent: float
    elements: float


def main(
    shared: Path = Path(os.environ.get("ELEMENTS_DATA", "../shared")),  # noqa: B008
    split: Literal["val", "train"] = "val",
    images: int = 100,
    plot: Path = Path("superpixels.png"),
    pictures: Path | None = None,
) -> None:
    """Score the partitions of some photographs, print tables and draw a plot.

    Args:
        shared: Folder with `weights/mobile_sam.pt` and `data/bsds500`; by default $ELEMENTS_DATA, or else ../shared.
        split: What is reported.
        images: How many photographs, of this split and of train.
        plot: PNG to write.
        pictures: Folder for pictures of the partitions.
    """
    bsds = shared / "data" / "bsds500"
    compactness = choose_compactness(bsds, images)
    model, _ = load_sam(shared / "weights" / "mobile_sam.pt")
    segmenter = SamSegmenter(model.to("cuda" if torch.cuda.is_available() else "cpu"), PAPER)

    sam: dict[float, list[Measures]] = {beta: [] for beta in BETAS}
    others: dict[str, list[Measures]] = {"SLIC": [], "grid": []}
    for name, image, truths in photographs(bsds, split, images):
        partitions = sweep_beta(segmenter, image)
        for beta, partition in partitions.items():
            sam[beta].append(measure(partition, truths))
        slic = replace(PAPER, compactness=compactness)
        superpixels = {
            "SLIC": partition_image(image, Slic(slic), slic),
            "grid": partition_image(image, Grid(PAPER), PAPER),
        }
        for kind, partition in superpixels.items():
            others[kind].append(measure(partition, truths))
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            for kind, partition in {"SAM": partitions[PAPER.beta], **superpixels}.items():
                draw_partition(image, partition).save(pictures / f"{name}-{kind}.png")

    print_table(f"{split}, N = {PAPER.num_elements}", {"SAM": sam[PAPER.beta], **others})
    print_table(f"{split}, SAM", {f"beta = {beta:g}": rows for beta, rows in sam.items()})
    draw_plot(sam, others, plot)
    print(f"\n{len(others['SLIC'])} photographs; plot in {plot}")


def choose_compactness(bsds: Path, images: int) -> float:
    """SLIC's best compactness on train."""
    rows: dict[float, list[Measures]] = {compactness: [] for compactness in COMPACTNESS}
    for _, image, truths in photographs(bsds, "train", images):
        for compactness in COMPACTNESS:
            config = replace(PAPER, compactness=compactness)
            rows[compactness].append(measure(partition_image(image, Slic(config), config), truths))
    print_table("train, SLIC", {f"compactness = {compactness:g}": found for compactness, found in rows.items()})
    means = {compactness: mean(found) for compactness, found in rows.items()}
    return max(means, key=lambda key: means[key].boundary_recall - means[key].undersegmentation_error)


def photographs(bsds: Path, split: str, images: int) -> Iterator[tuple[str, np.ndarray, list[np.ndarray]]]:
    """Stem, picture and truths of photographs taken evenly from a split."""
    folder = bsds / "images" / split
    paths = sorted(folder.glob("*.jpg"))
    count = min(images, len(paths))
    for path in tqdm([paths[i * len(paths) // count] for i in range(count)], desc=split, unit="photo"):
        truths = read_truths(bsds / "groundTruth" / split / f"{path.stem}.mat")
        cropped = [crop_labels(truth, PAPER.size) for truth in truths]
        yield path.stem, read_photo(read_sample(path, path.name), PAPER.size).image, cropped


def sweep_beta(segmenter: SamSegmenter, image: np.ndarray) -> dict[float, Partition]:
    """SAM's partition for each beta. The scores of its one iteration do not depend on beta: they are decoded once."""
    s = segmenter.scores(segmenter.embed(image), query_grid(PAPER.grid))
    partitions = {}
    for beta in BETAS:
        config = replace(PAPER, beta=beta)
        assignment = assign_elements(lambda _: s, image.shape[:2], config).cpu().numpy()
        partitions[beta] = partition_image(image, lambda _, g=assignment: g, config)
    return partitions


def measure(partition: Partition, truths: list[np.ndarray]) -> Measures:
    """What the tables show of one partition."""
    return Measures(*score_partition(partition.label_map, truths), 100 * partition.dropped, partition.valid.sum())


def mean(rows: list[Measures]) -> Measures:
    """The mean over images."""
    return Measures(*np.mean(rows, axis=0))


def print_table(title: str, rows: dict[str, list[Measures]]) -> None:
    """Means over images, a row for each way to divide them."""
    names = [name.replace("_", " ") for name in Measures._fields]
    print(f"\n{title:20}" + "".join(f"  {name:>{len(name)}}" for name in names))
    for label, found in rows.items():
        cells = (f"  {value:{len(name)}.4g}" for value, name in zip(mean(found), names, strict=True))
        print(f"{label:20}" + "".join(cells))


def draw_plot(sam: dict[float, list[Measures]], others: dict[str, list[Measures]], path: Path) -> None:
    """Means of each measure over beta, and those of the others, which know no beta, as level lines."""
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    for axes, name in zip(figure.subplots(2, 3).flat, Measures._fields, strict=True):
        axes.plot(list(sam), [getattr(mean(rows), name) for rows in sam.values()], "o-", label="SAM")
        for (kind, rows), color, style in zip(others.items(), ("C1", "C2"), ("--", ":"), strict=True):
            axes.axhline(getattr(mean(rows), name), label=kind, color=color, linestyle=style)
        axes.axvline(PAPER.beta, color="0.8", zorder=0)  # the paper's choice
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(sam), [f"{beta:g}" for beta in sam])
        axes.set(title=name.replace("_", " "), xlabel="beta")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    tyro.cli(main)
