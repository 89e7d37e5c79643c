"""Detail for a fill that was made at a lower resolution, from where its patches come from in the photograph."""

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image


def reduced(photograph: UInt8[np.ndarray, "H W 3"], longest: int) -> UInt8[np.ndarray, "h w 3"]:
    """Reduce a photograph by area averaging, so that its longer side has `longest` pixels."""
    height, width = photograph.shape[:2]
    factor = longest / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(photograph).resize(size, Image.Resampling.BOX))


def with_detail(
    photograph: UInt8[np.ndarray, "H W 3"],
    hole: Bool[np.ndarray, "H W"],
    small: UInt8[np.ndarray, "h w 3"],
    origin: Int[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "H W 3"]:
    """Fill the hole from a smaller, filled photograph, with detail.

    The small one has the low frequencies. The rest is what it lacks of the photograph at the origin of each of its
    pixels, the index of a known one. A pixel whose origin is unknown gets no detail.
    """
    (height, width), (rows, columns) = hole.shape, small.shape[:2]
    enlarged = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.LANCZOS))
    y, x = np.nonzero(hole)
    at_y, at_x = y * rows // height, x * columns // width
    from_y, from_x = np.divmod(origin[at_y, at_x], columns)
    there_y = np.clip(y + np.rint((from_y - at_y) * (height / rows)).astype(int), 0, height - 1)
    there_x = np.clip(x + np.rint((from_x - at_x) * (width / columns)).astype(int), 0, width - 1)
    detail = photograph[there_y, there_x].astype(np.int16) - enlarged[there_y, there_x]
    detail[hole[there_y, there_x]] = 0
    filled = photograph.copy()
    filled[y, x] = np.clip(enlarged[y, x] + detail, 0, 255)
    return filled
