"""Find the object in a box by colour, without a network, in the spirit of GrabCut (Rother, Kolmogorov and Blake 2004).

Superpixels replace pixels, and nearest neighbours replace mixtures and cuts: superpixels that look like the frame
around the box are background.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage, spatial
from skimage import color, segmentation

SIDE = 256
"""Side of the image that is divided into superpixels, in pixels."""
SUPERPIXELS = 900
FRAME = 0.25
"""Width of the frame around the box that counts as background, in units of the box's longer side."""
ROUNDS = 6
NEIGHBOURS = 3
"""Number of nearest superpixels, of object and background each, with which one is compared."""


def object_in_box(
    image: UInt8[np.ndarray, "H W 3"], box: tuple[float, float, float, float]
) -> tuple[Bool[np.ndarray, "H W"], float]:
    """Find the object in a box (left, top, right, bottom), in units of the photograph's width and height.

    Returns:
        The mask, all of the box if nothing in it differs from its frame; and how far the mask's edge may be from the
        object's, in pixels.
    """
    height, width = image.shape[:2]
    corners = np.array(box) * (width, height, width, height)
    left, top = np.floor(corners[:2]).astype(int)
    right, bottom = np.maximum(np.ceil(corners[2:]).astype(int), (left + 1, top + 1))
    margin = int(np.ceil(FRAME * max(right - left, bottom - top)))
    x0, y0, x1, y1 = (
        max(0, left - margin),
        max(0, top - margin),
        min(width, right + margin),
        min(height, bottom + margin),
    )
    factor = max(1.0, max(x1 - x0, y1 - y0) / SIDE)
    size = max(1, round((x1 - x0) / factor)), max(1, round((y1 - y0) / factor))
    small = np.asarray(Image.fromarray(image[y0:y1, x0:x1]).resize(size, Image.Resampling.BOX))
    inside = np.zeros(small.shape[:2], bool)
    columns, rows = (
        (np.array(ends) / factor).round().astype(int) for ends in ((left - x0, right - x0), (top - y0, bottom - y0))
    )
    inside[rows[0] : max(rows[1], rows[0] + 1), columns[0] : max(columns[1], columns[0] + 1)] = True
    found = _unlike_the_frame(small, inside)
    resized = Image.fromarray(found.astype(np.uint8) * 255).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC)
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = np.asarray(resized) > 127
    outside = np.ones((height, width), bool)
    outside[top:bottom, left:right] = False
    mask &= ~outside
    if not mask.any():
        mask = ~outside
    return mask, 2 * factor + 1


def _unlike_the_frame(image: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return the pixels of a box whose colour is closer to the colours of its middle than to those of its frame."""
    if inside.all() or min(image.shape[:2]) < 8:
        return inside
    labels = segmentation.slic(image, n_segments=SUPERPIXELS, compactness=10, start_label=0)
    index = np.arange(labels.max() + 1)
    lab = color.rgb2lab(image)
    colours = np.stack([ndimage.mean(lab[..., c], labels, index) for c in range(3)], axis=1)
    free = ndimage.mean(inside, labels, index) > 0.5
    if not free.any() or free.all():
        return inside
    front = free.copy()
    for _ in range(ROUNDS):
        nearer = _distance(colours, colours[front]) < _distance(colours, colours[~front])
        # Smooth by a vote over a disc of a few superpixels.
        votes = ndimage.gaussian_filter(nearer[labels].astype(np.float32), 2)
        new = free & (ndimage.mean(votes, labels, index) > 0.5)
        if not new.any() or (new == front).all():
            break
        front = new
    pieces, count = ndimage.label(front[labels])
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    area[0] = 0
    return ndimage.binary_fill_holes((area >= 0.05 * area.max())[pieces] & inside)


def _distance(colours: Float[np.ndarray, "N 3"], to: Float[np.ndarray, "M 3"]) -> Float[np.ndarray, " N"]:
    """Return the mean distance of each colour from its nearest other colours in `to`."""
    if not len(to):
        return np.full(len(colours), np.inf)
    count = min(NEIGHBOURS + 1, len(to))
    distances = spatial.KDTree(to).query(colours, count)[0].reshape(len(colours), count)
    own = distances[:, :1] == 0  # do not compare a colour with itself
    return np.where(
        own[:, 0] & (count > 1),
        distances[:, 1:].mean(axis=1) if count > 1 else 0,
        distances[:, :NEIGHBOURS].mean(axis=1),
    )
