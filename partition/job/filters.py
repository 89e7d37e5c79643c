"""Selection of a source's images, and their split: Section 4 takes 3 M images of LAION and holds out 100 k."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from elements_jax.bounds import require_within

AESTHETIC = ("aesthetic_score", "aesthetic", "aesthetic_score_laion_v2")
"""Names of LAION's aesthetic score in data sets, in lower case: LAION-Aesthetics, img2dataset's examples, COYO."""
ALIGNMENT = ("similarity", "clip_similarity_vitl14", "clip_similarity_vitb32")
"""Names of the cosine similarity of CLIP's embeddings of image and text."""


@dataclass(frozen=True)
class Filters:
    """Thresholds on the scores in the metadata next to each image; the paper's are 6.25 and 0.25."""

    aesthetic: float | None = None
    """Take images whose aesthetic score is above this (paper: 6.25, Section 4)."""
    alignment: float | None = None
    """Take images whose text-image alignment is above this (paper: 0.25, Section 4)."""
    min_side: int | None = None
    """Take images whose shorter side has at least this many pixels; by default a quarter of the partition's size."""

    def __post_init__(self) -> None:
        require_within(self, aesthetic=(-1000, 1000), alignment=(-1000, 1000), min_side=(0, 1_000_000))

    def objection_to_metadata(self, metadata: Mapping[str, Any]) -> str:
        """Return why the scores in an image's metadata rule it out, or an empty string."""
        values = {name.lower(): value for name, value in metadata.items()}
        for what, least, names in (
            ("aesthetic score", self.aesthetic, AESTHETIC),
            ("alignment", self.alignment, ALIGNMENT),
        ):
            if least is None:
                continue
            found = next((values[name] for name in names if values.get(name) is not None), None)
            try:
                score = math.nan if found is None else float(found)
            except (TypeError, ValueError):
                score = math.nan
            if math.isnan(score):
                return f"no {what} in the metadata ({', '.join(names)})" if found is None else f"{what} is {found!r}"
            if score <= least:
                return f"{what} not above {least:g}"
        return ""

    def objection_to_size(self, width: int, height: int, size: int) -> str:
        """Return why an image of this size is ruled out for a partition of size x size, or an empty string."""
        least = size // 4 if self.min_side is None else self.min_side
        return f"shorter side below {least} pixels" if min(width, height) < least else ""


def is_held_out(source_id: str, share: float) -> bool:
    """Return whether an image is held out. Only its name decides, so every job and order agree."""
    return int.from_bytes(blake2b(source_id.encode(), digest_size=8).digest()) < share * 2**64
