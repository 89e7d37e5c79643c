"""Figure 14: each panel is a step of Algorithm 2 by its own functions."""

import numpy as np
import pytest
from PIL import Image

from partition.__main__ import main
from partition.components import partition_image
from partition.config import PartitionConfig
from partition.inspection.drawing import SIDE
from partition.inspection.steps import GAP, HEADING, steps
from partition.segmenters.sam import SamSegmenter


def test_the_panels_are_the_steps_and_the_last_is_the_partition(mobile_sam, disc):
    image, inside = disc
    config = PartitionConfig(size=128, grid=4)
    segmenter = SamSegmenter(mobile_sam, config)
    panels = steps(image, segmenter, config)
    assert list(panels) == [
        "SAM assignment",
        "distance regularization",
        "centroid adjustment",
        "connected components",
    ]
    np.testing.assert_array_equal(panels["centroid adjustment"], segmenter(image))
    np.testing.assert_array_equal(panels["connected components"], partition_image(image, segmenter, config).label_map)
    free, regular = ([np.bincount(panel[inside], minlength=16).max() for panel in panels.values()][i] for i in (0, 1))
    assert free > regular  # without the distance, one element holds most of the disc


def test_the_command_draws_five_panels(tmp_path, shared_data, disc, capsys):
    Image.fromarray(disc[0]).save(tmp_path / "disc.png")
    weights = str(shared_data / "weights" / "mobile_sam.pt")
    command = ["steps", str(tmp_path / "disc.png"), "--out", str(tmp_path / "steps.png"), "--checkpoint", weights]
    assert main([*command, "--size", "128", "--grid", "4"]) == 0
    with Image.open(tmp_path / "steps.png") as figure:
        assert figure.size == (5 * (SIDE + GAP) - GAP, HEADING + SIDE)
    assert main([*command[:3], str(tmp_path / "disc.png"), *command[4:]]) == 1
    assert "disc.png" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no photograph"])
def test_a_file_that_is_not_a_photograph_is_refused(tmp_path, shared_data, content, capsys):
    (tmp_path / "x.png").write_bytes(content)
    weights = str(shared_data / "weights" / "mobile_sam.pt")
    assert main(["steps", str(tmp_path / "x.png"), "--out", str(tmp_path / "y.png"), "--checkpoint", weights]) == 1
    assert "x.png" in capsys.readouterr().err
    assert not (tmp_path / "y.png").exists()
