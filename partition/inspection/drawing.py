"""Images of a record's partition and objects.

Boundaries are white and black, centroids are red dots, and dropped pixels are magenta; each object has its own colour.
"""

import colorsys

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image, ImageDraw

from elements_jax.data.record import DROPPED
from partition.components import Partition

SIDE = 1024
"""Least side of the drawing; images are enlarged by an integer factor, so that lines are thinner than pixels."""


def draw_partition(image: UInt8[np.ndarray, "H W 3"], partition: Partition) -> Image.Image:
    """Draw a partition onto its image."""
    labels, pixels = _enlarge(partition.label_map), _enlarge(image)
    height, width = labels.shape
    pixels[labels == DROPPED] = (255, 0, 255)
    # White on one side of a boundary and black on the other shows on any background.
    vertical, horizontal = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    pixels[:, :-1][vertical] = pixels[:-1][horizontal] = 0
    pixels[:, 1:][vertical] = pixels[1:][horizontal] = 255
    drawing = Image.fromarray(pixels)
    draw = ImageDraw.Draw(drawing)
    for x, y in partition.centroids[partition.valid] * (width, height):
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(230, 20, 20), outline=(255, 255, 255))
    return drawing


def draw_objects(image: UInt8[np.ndarray, "H W 3"], object_masks: Bool[np.ndarray, "M H W"]) -> Image.Image:
    """Draw object masks onto the image in grey: translucent, each in its own colour, smaller ones on top."""
    top = np.zeros(image.shape[:2], int)  # the number of the object on top; 0 for none
    for number, mask in enumerate(sorted(object_masks, key=np.count_nonzero, reverse=True), start=1):
        top[mask] = number
    top = _enlarge(top)
    pixels = _enlarge(np.asarray(Image.fromarray(image).convert("L").convert("RGB")))
    colour = _colours(len(object_masks) + 1)[top]
    inside, edge = top > 0, np.zeros(top.shape, bool)
    pixels[inside] = pixels[inside] // 2 + colour[inside] // 2
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = top[one] != top[other]
        edge[one] |= differs
        edge[other] |= differs
    pixels[edge & inside] = colour[edge & inside]
    return Image.fromarray(pixels)


def _enlarge(pixels: Shaped[np.ndarray, "H W *channels"]) -> Shaped[np.ndarray, "height width *channels"]:
    factor = -(-SIDE // max(pixels.shape[:2]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _colours(count: int) -> UInt8[np.ndarray, "count 3"]:
    """Return different colours, most different for neighbours: hues a golden section apart, light and dark in turn."""
    golden = (5**0.5 - 1) / 2
    colours = [colorsys.hsv_to_rgb(n * golden % 1, 1 - 0.4 * (n % 2), 1 - 0.3 * (n // 2 % 2)) for n in range(count)]
    return (255 * np.array(colours)).astype(np.uint8)
