"""Find the mask of an object in a photograph of any size with SAM, from a point on it or a box around it."""

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from scipy import ndimage

from partition.segmenters.object_selector import ObjectSelector

SIDE = 1024
"""Side of the squares that SAM segments, in pixels."""
CELLS = 256
"""Pixels of SAM's masks along a side."""
CONTEXT = 1.6
"""Side of the second square, in units of the object's size in the first."""
LARGE = 0.7
"""An object whose second square would exceed this share of the first needs no second look."""
AGREE = 0.6
"""Least IoU of both masks; below it, the second is of something else."""
SPECK = 0.02
"""Largest hole or island, in areas of the object, that counts as noise of the mask."""


def find_object(
    select: ObjectSelector,
    image: UInt8[np.ndarray, "H W 3"],
    point: tuple[float, float] | None,
    box: tuple[float, float, float, float] | None,
) -> tuple[Bool[np.ndarray, "H W"], float]:
    """Find the object at a point or in a box, in units of the photograph's width and height.

    SAM segments the complete photograph, and then a square around the object, for a finer edge.

    Returns:
        The mask, and how far its edge may be from the true one, in pixels.
    """
    height, width = image.shape[:2]
    size = np.array([width, height])
    pixel = None if point is None else np.array(point) * size
    corners = None if box is None else np.array(box) * np.tile(size, 2)
    side = max(width, height)
    corner = np.array([(width - side) // 2, (height - side) // 2])
    mask = _look(select, image, corner, side, pixel, corners)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows):
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        closer = int(np.ceil(CONTEXT * max(found[2] - found[0], found[3] - found[1], 32)))
        if closer < LARGE * side:
            near = ((found[:2] + found[2:]) / 2 - closer / 2).astype(int)
            near = np.clip(near, np.minimum(corner, 0), np.maximum(size - closer, np.minimum(corner, 0)))
            again = _look(select, image, near, closer, pixel, found)
            if (mask & again).sum() > AGREE * (mask | again).sum():
                mask, side = again, closer
    return mask, side / CELLS + 1


def _look(
    select: ObjectSelector,
    image: UInt8[np.ndarray, "H W 3"],
    corner: np.ndarray,
    side: int,
    pixel: np.ndarray | None,
    box: np.ndarray | None,
) -> Bool[np.ndarray, "H W"]:
    """Return SAM's mask in a square of the photograph, which is grey beyond the photograph's border."""
    height, width = image.shape[:2]
    left, top = np.maximum(corner, 0)
    right, bottom = np.minimum(corner + side, (width, height))
    square = Image.new("RGB", (side, side), (124, 116, 104))
    square.paste(Image.fromarray(image[top:bottom, left:right]), (int(left - corner[0]), int(top - corner[1])))
    points = np.zeros((0, 2)) if pixel is None else ((pixel - corner) / side)[None]
    limits = None if box is None else (box - np.tile(corner, 2)) / side
    seen = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    mask = _without_specks(select(seen, points, np.zeros((0, 2)), limits))
    full = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BICUBIC)) > 127
    result = np.zeros((height, width), bool)
    result[top:bottom, left:right] = full[top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]]
    return result


def _without_specks(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Remove small islands and fill small holes."""
    least = SPECK * mask.sum()
    for value in (True, False):
        labels, count = ndimage.label(mask == value)
        area = np.bincount(labels.ravel(), minlength=count + 1)
        small = (area < least) & (np.arange(count + 1) > 0)
        mask = np.where(small[labels], not value, mask)
    return mask
