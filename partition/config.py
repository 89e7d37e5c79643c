"""How an image is divided into elements: one frozen dataclass, stored with every record."""

from dataclasses import dataclass
from typing import Literal

from elements_jax.bounds import FieldError, require_above_zero, require_within

MaskChoice = Literal["mean", "best", "smallest", "single"]
"""SAM gives a point three candidate masks, what it takes for a whole, a part and a smaller part, and one mask more for
prompts that leave no doubt. Taken is the mean of the candidates' affinities, the candidate that SAM trusts most, the
smallest of them, or the single mask."""
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class PartitionConfig:
    """The defaults are the paper's (Algorithm 2, Appendix C.3), or the project's reading where it is silent [settled].

    Raises ValueError naming the field that does not fit.
    """

    size: int = 512
    """Side in pixels of the square picture that is cut out of a photo (Section 3.1)."""
    grid: int = 16
    """Query points a side; an image has at most grid**2 elements (Section 3.1)."""
    iterations: int = 1
    """T, passes of Algorithm 2 (Appendix C.3)."""
    centroid_ratio: float = 0.2
    """beta_c, how far a query point moves from its grid point to its cluster's centroid (Appendix C.3)."""
    beta: float = 64.0
    """Weight of the distance against SAM's score in Eq. 1 (Section 4.1)."""
    distance: Literal["squared", "linear"] = "squared"
    """d of Eq. 1: the Euclidean distance or its square, where the image has side 1 [settled]."""
    mask: MaskChoice = "mean"
    """Which of SAM's masks of a query is its affinity. The paper is silent; of the four, chosen on BSDS500's training
    photographs, the mean follows people's boundaries best (tests/benchmarks/superpixels_bsds.py)."""
    opening: bool = False
    """Open every element by 3 x 3 pixels before its largest component is taken (Algorithm 2, line 8) [settled]."""
    compactness: float = 20.0
    """SLIC's weight of the distance against the colour: 10 to 20 suits photographs, 40 the 64 px scenes."""

    def __post_init__(self) -> None:
        require_above_zero(self, "size", "iterations", "compactness")
        require_within(self, size=(1, 16384), iterations=(1, 1000), beta=(0, 1e9), compactness=(0, 1e9))
        require_within(self, centroid_ratio=(0, 1))
        if not 1 <= self.grid <= min(self.size, 255):  # a label is below 65535
            expected = f"must be at least 1, at most 255 and at most size = {self.size}, got {self.grid}"
            raise FieldError(self, ("grid",), expected)

    @property
    def num_elements(self) -> int:
        """N, the number of elements of an image, empty ones counted."""
        return self.grid**2
