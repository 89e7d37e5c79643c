"""Settings of the segmentation into elements: one frozen dataclass, stored with every record."""

from dataclasses import dataclass
from typing import Literal

from elements_jax.bounds import FieldError, require_above_zero, require_within

MaskChoice = Literal["mean", "best", "smallest", "single"]
"""For a point, SAM returns three candidate masks (an object, a part and a smaller part) and a single mask for
unambiguous prompts. The choices are the mean of the candidates' affinities, the candidate that SAM trusts most, the
smallest candidate, and the single mask."""
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class PartitionConfig:
    """The defaults are the paper's (Algorithm 2, Appendix C.3), or this project's choice if the paper gives none
    [settled].

    Raises ValueError naming a field out of bounds.
    """

    size: int = 512
    """Side in pixels of the square image that is cut out of a photo (Section 3.1)."""
    grid: int = 16
    """Query points per side; an image has at most grid**2 elements (Section 3.1)."""
    iterations: int = 1
    """T, passes of Algorithm 2 (Appendix C.3)."""
    centroid_ratio: float = 0.2
    """beta_c, how far a query point moves from its grid point to its cluster's centroid (Appendix C.3)."""
    beta: float = 64.0
    """Weight of the distance against SAM's score in Eq. 1 (Section 4.1)."""
    distance: Literal["squared", "linear"] = "squared"
    """d of Eq. 1: the Euclidean distance or its square, in an image of side 1 [settled]."""
    mask: MaskChoice = "mean"
    """The choice among SAM's masks that gives a query's affinity. The paper does not say. On BSDS500's training
    photographs, the mean follows human boundaries best (tests/benchmarks/segmentation/superpixels_bsds.py)."""
    opening: bool = False
    """Open every element by 3 x 3 pixels before keeping its largest component (Algorithm 2, line 8) [settled]."""
    compactness: float = 20.0
    """SLIC's weight of distance against colour: 10 to 20 suits photographs, 40 suits the 64 px scenes."""

    def __post_init__(self) -> None:
        require_above_zero(self, "size", "iterations", "compactness")
        require_within(self, size=(1, 16384), iterations=(1, 1000), beta=(0, 1e9), compactness=(0, 1e9))
        require_within(self, centroid_ratio=(0, 1))
        if not 1 <= self.grid <= min(self.size, 255):  # a label is below 65535
            expected = f"must be at least 1, at most 255 and at most size = {self.size}, got {self.grid}"
            raise FieldError(self, ("grid",), expected)

    @property
    def num_elements(self) -> int:
        """N, the number of elements of an image, including empty ones."""
        return self.grid**2
