"""Explanatory drawings: element boundaries and numbers, and edits as red and green dots like in the paper's figures."""

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw

from elements_jax.elements import ImageElements

SIDE = 512  # a drawing is enlarged by an integer factor to at least this size in pixels
BOUNDARY, DROPPED_HATCH = (255, 235, 60), (255, 0, 255)
SOURCE, TARGET, DELETED = (230, 30, 30), (30, 190, 60), (40, 90, 255)  # Figures 4 and 8


def enlarge(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Repeat pixels until the image is large enough to draw on."""
    return np.kron(image, np.ones((_factor(image), _factor(image), 1), np.uint8))


def boundaries(
    image: UInt8[np.ndarray, "H W 3"],
    label_map: Integer[np.ndarray, "H W"],
    *,
    num_elements: int,
    numbers: bool = False,
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Draw lines between elements, dropped pixels in magenta and, if requested, each element's number."""
    factor = _factor(image)
    labels = np.kron(label_map.astype(np.int32), np.ones((factor, factor), np.int32))
    picture = enlarge(image)
    picture[labels >= num_elements] = DROPPED_HATCH
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    picture[edge] = BOUNDARY
    if not numbers:
        return picture
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    for n in range(num_elements):
        ys, xs = np.nonzero(label_map == n)
        if len(ys):
            at = (xs.mean() + 0.5) * factor, (ys.mean() + 0.5) * factor
            pen.text(at, str(n), anchor="mm", fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(canvas)


def edit_dots(
    image: UInt8[np.ndarray, "H W 3"], before: ImageElements, after: ImageElements
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Draw an edit on the image, as in Figures 4 and 8: the difference of `before` and `after` (without batch).

    Red dots show where elements were, green dots where they go, and blue crosses deleted ones, by hand or by collision.
    """
    canvas = Image.fromarray(enlarge(image))
    pen = ImageDraw.Draw(canvas)
    radius = max(canvas.size) // 100
    old, new = (np.asarray(e.position)[:, :2] * canvas.size for e in (before, after))
    lived, lives = np.asarray(before.valid), np.asarray(after.valid)
    # If the content of a slot changed, its element was deleted and another inserted.
    filled = lives & (~lived | np.any(np.asarray(before.content != after.content), axis=-1))
    moved = lived & lives & ~filled & np.any(np.asarray(before.position != after.position), axis=-1)

    for x, y in old[lived & (~lives | filled)]:
        for rise in (radius, -radius):
            pen.line((x - radius, y - rise, x + radius, y + rise), fill=DELETED, width=max(2, radius // 2))
    for start, end in zip(old[moved], new[moved], strict=True):
        pen.line((*start, *end), fill="white", width=1)
    for colour, points in ((SOURCE, old[moved]), (TARGET, new[moved | filled])):
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")
    return np.asarray(canvas)


def _factor(image: UInt8[np.ndarray, "H W 3"]) -> int:
    return max(1, -(-SIDE // max(image.shape[:2])))
