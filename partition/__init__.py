"""Segment photographs into image elements: segmenters, Algorithm 2, and the job that writes records. PyTorch, NumPy."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from elements_jax.data.photo import Photo


def divide(
    photograph: str | Path | bytes,
    *,
    size: int,
    grid: int = 16,
    segmenter: Literal["slic", "grid", "sam", "mobile-sam"] = "slic",
    checkpoint: str | Path | None = None,
    fit: Literal["crop", "pad"] = "crop",
) -> "Photo":
    """Segment a photograph into at most grid x grid image elements, as a model takes them.

    Args:
        photograph: an image file, or its bytes.
        size: side of the model's square image, in pixels.
        checkpoint: weights of SAM or MobileSAM, if the segmenter is one of them.
        fit: take the square at the centre, as in the paper, or all of the photograph between margins.

    Raises FileNotFoundError, and ValueError if the file is not an image or the segmenter has no checkpoint.
    """
    from elements_jax.data.atomic import read_file
    from partition.config import PartitionConfig
    from partition.job.worker import make_segmenter
    from partition.photos import divide_photo

    encoded = photograph if isinstance(photograph, bytes) else read_file(photograph)
    config = PartitionConfig(size=size, grid=grid)
    chosen = make_segmenter(segmenter, None if checkpoint is None else Path(checkpoint), config)[1]
    return divide_photo(encoded, chosen, config, fit)
