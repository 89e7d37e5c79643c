"""Elements of SAM, SLIC and a grid against human segmentations, and the sweep over beta of the paper's Figure 15.

    python tests/benchmarks/segmentation/superpixels_bsds.py --images 20

All segment the centre square of a BSDS500 photograph, at 512 px, into at most 256 elements; the truths are cropped in
the same way. A score is averaged over the people who segmented an image, then over evenly spaced images of a split.
SLIC's compactness is chosen on train by boundary recall minus under-segmentation error, as Stutz et al. 2018 choose
parameters. A less compact SLIC draws more boundary, and so finds more: the plot also shows the scores over the share of
boundary pixels, along both sweeps.
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

from partition.assignment import assign_elements, query_grid
from partition.components import Partition, partition_image
from partition.config import PartitionConfig
from partition.inspection.boundary_scores import contour_density, read_truths, score_partition
from partition.inspection.drawing import draw_partition
from partition.photos import crop_labels, read_photo
from partition.segmenters.sam import SamSegmenter, load_sam
from partition.segmenters.superpixels import Grid, Slic
from partition.sources.sample import read_sample

BETAS = (4.0, 16.0, 64.0, 256.0, 1024.0)
COMPACTNESS = (5.0, 10.0, 20.0, 40.0, 80.0)


class Measures(NamedTuple):
    """Measures of one partition, or their means over images."""

    boundary_recall: float
    undersegmentation_error: float
    achievable_accuracy: float
    compactness: float
    agreed_recall: float
    contour_density: float
    dropped_percent: float
    elements: float


def main(
    shared: Path = Path(os.environ.get("ELEMENTS_DATA", "../shared")),  # noqa: B008
    split: Literal["val", "train"] = "val",
    images: int = 100,
    config: PartitionConfig = PartitionConfig(),  # noqa: B008
    plot: Path = Path("superpixels.png"),
    pictures: Path | None = None,
) -> None:
    """Score the partitions of some photographs, print tables and draw a plot.

    Args:
        shared: Folder with `weights/mobile_sam.pt` and `data/bsds500`; by default $ELEMENTS_DATA, or else ../shared.
        split: Split to report.
        images: Number of photographs, of this split and of train.
        config: The partition's settings, except beta and compactness.
        plot: PNG to write.
        pictures: Folder for images of the partitions.
    """
    bsds = shared / "data" / "bsds500"
    model, _ = load_sam(shared / "weights" / "mobile_sam.pt")
    segmenter = SamSegmenter(model.to("cuda" if torch.cuda.is_available() else "cpu"), config)

    train: dict[float, list[Measures]] = {compactness: [] for compactness in COMPACTNESS}
    for _, image, truths in photographs(bsds, "train", images, config.size):
        for compactness, partition in sweep_compactness(image, config).items():
            train[compactness].append(measure(partition, truths))
    chosen = max(
        COMPACTNESS, key=lambda key: mean(train[key]).boundary_recall - mean(train[key]).undersegmentation_error
    )

    sam: dict[float, list[Measures]] = {beta: [] for beta in BETAS}
    slic: dict[float, list[Measures]] = {compactness: [] for compactness in COMPACTNESS}
    grid: list[Measures] = []
    for name, image, truths in photographs(bsds, split, images, config.size):
        of_sam, of_slic = sweep_beta(image, segmenter), sweep_compactness(image, config)
        of_grid = partition_image(image, Grid(config), config)
        for beta, partition in of_sam.items():
            sam[beta].append(measure(partition, truths))
        for compactness, partition in of_slic.items():
            slic[compactness].append(measure(partition, truths))
        grid.append(measure(of_grid, truths))
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            for kind, partition in {"SAM": of_sam[64.0], "SLIC": of_slic[chosen], "grid": of_grid}.items():
                draw_partition(image, partition).save(pictures / f"{name}-{kind}.png")

    print_table("train, SLIC", {f"compactness {key:g}": rows for key, rows in train.items()})
    print_table(f"{split}, SLIC", {f"compactness {key:g}": rows for key, rows in slic.items()})
    print_table(f"{split}, SAM", {f"beta {key:g}": rows for key, rows in sam.items()})
    same = {"SAM, beta 64": sam[64.0], f"SLIC, compactness {chosen:g}": slic[chosen], "grid": grid}
    print_table(f"{split}, at most {config.num_elements}", same)
    draw_plot(sam, slic, chosen, grid, plot)
    print(f"\n{len(grid)} photographs; plot in {plot}")


def photographs(bsds: Path, split: str, images: int, size: int) -> Iterator[tuple[str, np.ndarray, list[np.ndarray]]]:
    """Yield stem, image and truths of evenly spaced photographs of a split."""
    folder = bsds / "images" / split
    paths = sorted(folder.glob("*.jpg"))
    count = min(images, len(paths))
    for path in tqdm([paths[i * len(paths) // count] for i in range(count)], desc=split, unit="photo"):
        truths = [crop_labels(truth, size) for truth in read_truths(bsds / "groundTruth" / split / f"{path.stem}.mat")]
        yield path.stem, read_photo(read_sample(path, path.name), size).image, truths


def sweep_beta(image: np.ndarray, segmenter: SamSegmenter) -> dict[float, Partition]:
    """Return SAM's partition for each beta. The scores of its one iteration do not depend on beta: decode them once."""
    s = segmenter.scores(segmenter.embed(image[None])[0], query_grid(segmenter.config.grid))
    partitions = {}
    for beta in BETAS:
        config = replace(segmenter.config, beta=beta, iterations=1)
        assignment = assign_elements(lambda _: s, image.shape[:2], config).cpu().numpy()
        partitions[beta] = partition_image(image, lambda _, g=assignment: g, config)
    return partitions


def sweep_compactness(image: np.ndarray, config: PartitionConfig) -> dict[float, Partition]:
    """Return SLIC's partition for each compactness."""
    configs = {compactness: replace(config, compactness=compactness) for compactness in COMPACTNESS}
    return {compactness: partition_image(image, Slic(each), each) for compactness, each in configs.items()}


def measure(partition: Partition, truths: list[np.ndarray]) -> Measures:
    """Return the table's measures of one partition."""
    return Measures(
        *score_partition(partition.label_map, truths),
        contour_density(partition.label_map),
        100 * partition.dropped,
        partition.valid.sum(),
    )


def mean(rows: list[Measures]) -> Measures:
    """Average over images."""
    return Measures(*np.mean(rows, axis=0))


def print_table(title: str, rows: dict[str, list[Measures]]) -> None:
    """Print means over images, one row per segmenter."""
    names = [name.replace("_", " ") for name in Measures._fields]
    print(f"\n{title:20}" + "".join(f"  {name:>{len(name)}}" for name in names))
    for label, found in rows.items():
        cells = (f"  {value:{len(name)}.4g}" for value, name in zip(mean(found), names, strict=True))
        print(f"{label:20}" + "".join(cells))


def draw_plot(
    sam: dict[float, list[Measures]],
    slic: dict[float, list[Measures]],
    chosen: float,
    grid: list[Measures],
    path: Path,
) -> None:
    """Draw the measures over beta, with level lines for SLIC and grid, which have no beta; below, over the density."""
    beta, compactness = ({key: mean(rows) for key, rows in sweep.items()} for sweep in (sam, slic))
    figure = Figure(figsize=(15, 7), layout="constrained")
    above, below = figure.subplots(2, 4)
    for axes, name in zip(
        above, ("boundary_recall", "undersegmentation_error", "compactness", "dropped_percent"), strict=True
    ):
        axes.plot(list(beta), [getattr(row, name) for row in beta.values()], "o-", label="SAM")
        axes.axhline(getattr(compactness[chosen], name), color="C1", linestyle="--", label=f"SLIC, {chosen:g}")
        axes.axhline(getattr(mean(grid), name), color="C2", linestyle=":", label="grid")
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(beta), [f"{key:g}" for key in beta])
        axes.set(title=name.replace("_", " "), xlabel="beta")
    for axes, name in zip(
        below, ("boundary_recall", "agreed_recall", "undersegmentation_error", "achievable_accuracy"), strict=True
    ):
        for label, sweep, style in (("SAM, beta", beta, "C0o-"), ("SLIC, compactness", compactness, "C1s--")):
            density = [row.contour_density for row in sweep.values()]
            values = [getattr(row, name) for row in sweep.values()]
            axes.plot(density, values, style, label=label)
            for key, x, y in zip(sweep, density, values, strict=True):
                axes.annotate(f"{key:g}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.plot(mean(grid).contour_density, getattr(mean(grid), name), "C2D", label="grid")
        axes.set(title=name.replace("_", " "), xlabel="share of boundary pixels")
    above[0].legend()
    below[0].legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    tyro.cli(main)
