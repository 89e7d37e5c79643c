"""Objects from points, by the real MobileSAM."""

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from partition.config import PartitionConfig
from partition.segmenters import object_selector
from partition.segmenters.object_selector import ObjectSelector
from partition.segmenters.sam import SamSegmenter

ON, BESIDE = [74 / 128, 60 / 128], [10 / 128, 110 / 128]
NONE = np.zeros((0, 2), np.float32)


@pytest.fixture
def select(mobile_sam: Sam) -> ObjectSelector:
    return ObjectSelector(SamSegmenter(mobile_sam, PartitionConfig(size=128, grid=2)))


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def test_points_on_the_disc_and_beside_it(select: ObjectSelector, disc: tuple[np.ndarray, np.ndarray]) -> None:
    image, inside = disc
    on, beside = np.float32([ON]), np.float32([BESIDE])
    assert iou(select(image, on, NONE), inside) > 0.95
    assert iou(select(image, on, beside), inside) > 0.95
    assert iou(select(image, beside, on), ~inside) > 0.95


def test_masks_equal_those_of_the_published_predictor(
    select: ObjectSelector, mobile_sam: Sam, disc: tuple[np.ndarray, np.ndarray]
) -> None:
    """The predictor resizes the image in another way, so a few pixels at the edge may differ."""
    image, _ = disc
    predictor = SamPredictor(mobile_sam)
    predictor.set_image(image)
    for points, labels in (([ON], [1]), ([ON, BESIDE], [1, 0]), ([BESIDE, ON], [1, 0])):
        masks, trust, _ = predictor.predict(
            128 * np.float32(points), np.array(labels), multimask_output=len(points) == 1
        )
        positive = np.float32([point for point, label in zip(points, labels, strict=True) if label])
        negative = np.float32([point for point, label in zip(points, labels, strict=True) if not label])
        assert np.mean(select(image, positive, negative.reshape(-1, 2)) != masks[trust.argmax()]) < 0.01


def test_an_image_is_embedded_once_while_it_is_cached(
    mobile_sam: Sam, disc: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = SamSegmenter(mobile_sam, PartitionConfig(size=128, grid=2))
    embedded = []

    def embed(images: np.ndarray) -> torch.Tensor:
        embedded.append(int(images[0, 0, 0, 0]))
        return torch.zeros(1, 256, 64, 64)

    monkeypatch.setattr(segmenter, "embed", embed)
    monkeypatch.setattr(object_selector, "REMEMBERED", 2)
    select = ObjectSelector(segmenter)
    for value in (0, 0, 1, 0, 2, 0, 1):  # 2 replaces 1, and 1 replaces 2
        select(np.full((128, 128, 3), value, np.uint8), np.float32([ON]), NONE)
    assert embedded == [0, 1, 2, 1]
