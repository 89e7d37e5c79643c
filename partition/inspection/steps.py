"""`elements partition steps PHOTO`: the intermediate results of Algorithm 2 on one photograph, as in Figure 14."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from elements_jax.arguments import PathOrURL
from elements_jax.data.atomic import new_file, read_file, require_apart
from elements_jax.data.object_store import with_local_paths
from elements_jax.data.record import DROPPED
from partition.assignment import (
    adjust_centroids,
    compute_assignment,
    compute_assignment_with_distance,
    compute_centroids,
    query_grid,
)
from partition.components import Partition, measure_elements, partition_image
from partition.config import PartitionConfig
from partition.inspection.drawing import draw_partition
from partition.job.worker import make_segmenter
from partition.photos import read_photo
from partition.segmenters.sam import SamSegmenter
from partition.sources.sample import Sample

DEFAULT_CONFIG = PartitionConfig()
GAP, HEADING = 12, 44
"""Pixels between the panels, and above each for its title."""


@dataclass(frozen=True)
class Steps:
    """Draw how SAM's scores of one photograph become image elements, step by step, as in Figure 14."""

    photo: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO")]
    """The photograph; its central square is used."""
    out: Annotated[PathOrURL, tyro.conf.arg(metavar="FILE")]
    """PNG for the drawing."""
    checkpoint: Annotated[PathOrURL, tyro.conf.arg(metavar="FILE")]
    """Checkpoint of SAM or MobileSAM, as in `elements partition`."""
    config: Annotated[PartitionConfig, tyro.conf.arg(name="")] = DEFAULT_CONFIG


def draw_steps(job: Steps) -> int:
    """Draw the figure and return the exit code 0. Raises ValueError for a file that is not a photograph, or a wrong
    checkpoint."""
    with with_local_paths(job) as local:
        require_apart(local.out, local.photo, local.checkpoint)
        try:
            image = read_photo(Sample(local.photo.name, read_file(local.photo)), job.config.size).image
        except ValueError as error:
            raise ValueError(f"{job.photo}: {error}") from error
        _, segmenter = make_segmenter("sam", local.checkpoint, job.config)
        panels = steps(image, segmenter, job.config)
        with new_file(local.out) as file:
            _side_by_side(image, panels).save(file, "PNG")
    return 0


def steps(
    image: UInt8[np.ndarray, "S S 3"], segmenter: SamSegmenter, config: PartitionConfig
) -> dict[str, Int[np.ndarray, "S S"]]:
    """Return the label map after each step of the first pass of Algorithm 2, by title."""
    embedding = segmenter.embed(image[None])[0]
    size = image.shape[:2]
    s = segmenter.scores(embedding, query_grid(config.grid))
    grid = query_grid(config.grid).to(s.device)
    by_score = compute_assignment(s, size)
    centroids = compute_centroids(by_score, empty=grid)
    adjusted = adjust_centroids(centroids, grid, config)
    assignment = _numpy(compute_assignment_with_distance(s, adjusted, size, config))
    return {
        "SAM assignment": _numpy(by_score),
        "distance regularization": _numpy(compute_assignment_with_distance(s, centroids, size, config)),
        "centroid adjustment": assignment,
        "connected components": partition_image(image, lambda _: assignment, config).label_map,
    }


def _numpy(labels: Tensor) -> Int[np.ndarray, "S S"]:
    return labels.cpu().numpy().astype(np.uint16)


def _side_by_side(image: UInt8[np.ndarray, "S S 3"], panels: dict[str, Int[np.ndarray, "S S"]]) -> Image.Image:
    count = max(int(labels[labels != DROPPED].max()) for labels in panels.values()) + 1
    drawn = {"photograph": Image.fromarray(image)}
    for title, labels in panels.items():
        drawn[title] = draw_partition(image, Partition(labels, *measure_elements(labels, count)))
    side = max(panel.width for panel in drawn.values())
    figure = Image.new("RGB", (len(drawn) * (side + GAP) - GAP, HEADING + side), "white")
    pen, font = ImageDraw.Draw(figure), ImageFont.load_default(HEADING - 12)
    for number, (title, panel) in enumerate(drawn.items()):
        figure.paste(panel.resize((side, side), Image.Resampling.LANCZOS), (number * (side + GAP), HEADING))
        pen.text((number * (side + GAP), 0), title, "black", font)
    return figure
