"""The real MobileSAM, read once, and pictures whose objects are known."""

from pathlib import Path

import numpy as np
import pytest
from segment_anything.modeling import Sam

from partition.sam import load_sam


@pytest.fixture(scope="session")
def mobile_sam(shared_data: Path) -> Sam:
    model, kind = load_sam(shared_data / "weights" / "mobile_sam.pt")
    assert kind == "mobile-sam"
    return model


@pytest.fixture(scope="session")
def disc() -> tuple[np.ndarray, np.ndarray]:
    """A picture of an orange disc on blue, 128 px, with a little noise; and the disc's pixels."""
    y, x = np.mgrid[:128, :128]
    inside = (x - 74.0) ** 2 + (y - 60.0) ** 2 < 30**2
    image = np.where(inside[..., None], (235, 130, 30), (30, 60, 150))
    return (image + np.random.default_rng(0).integers(-8, 9, image.shape)).astype(np.uint8), inside
