"""Three object masks, the layouts of COCO, and what a source of masks finds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from partition.masks import DEFAULT_FILTER, LeftOut, MaskFilter, MaskSource
from partition.sources.sample import Sample

SHAPE = (6, 8)
LEFT = np.zeros(SHAPE, bool)
LEFT[:, :4] = True
TOP = np.zeros(SHAPE, bool)
TOP[:3] = True
SPOT = np.zeros(SHAPE, bool)
SPOT[2, 5] = True


def compress(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Encode COCO's uncompressed layout, by its definition."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def find(source: MaskSource, source_id: str, keep: MaskFilter = DEFAULT_FILTER) -> list[np.ndarray]:
    return [each for each in source.find(Sample(source_id, b""), SHAPE, keep) if not isinstance(each, LeftOut)]


def left_out(source: MaskSource, source_id: str, keep: MaskFilter = DEFAULT_FILTER) -> list[LeftOut]:
    return [each for each in source.find(Sample(source_id, b""), SHAPE, keep) if isinstance(each, LeftOut)]


def assert_same(found: Sequence[np.ndarray], *expected: np.ndarray) -> None:
    assert len(found) == len(expected)
    for have, want in zip(found, expected, strict=True):
        assert have.dtype == bool
        np.testing.assert_array_equal(have, want)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
