"""Dropped pixels on real photographs at the paper's settings; `tests/benchmarks/segmentation` has more."""

from pathlib import Path

import numpy as np
import pytest
from segment_anything.modeling import Sam

from partition.components import partition_image
from partition.config import PartitionConfig
from partition.photos import read_photo
from partition.segmenters.sam import SamSegmenter
from partition.sources.sample import read_sample


@pytest.mark.slow
def test_less_than_one_percent_of_the_pixels_are_dropped(shared_data: Path, mobile_sam: Sam) -> None:
    config = PartitionConfig()
    folder = shared_data / "data" / "bsds500" / "images" / "val"
    segmenter = SamSegmenter(mobile_sam, config)
    paths = sorted(folder.glob("*.jpg"))[::17]
    images = (read_photo(read_sample(path, path.name), config.size).image for path in paths)
    results = [partition_image(image, segmenter, config) for image in images]
    assert len(results) == 6
    assert np.mean([result.dropped for result in results]) < 0.01
    assert np.mean([result.valid.sum() for result in results]) > 240
