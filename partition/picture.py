"""A picture of a partition: boundaries in white and black, centroids as red dots, dropped pixels in magenta."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from elements_jax.schema import DROPPED
from partition.elements import Partition

SIDE = 1024
"""The picture is enlarged by a whole number to at least this side, so that lines are thinner than pixels."""


def draw_partition(image: UInt8[np.ndarray, "H W 3"], partition: Partition) -> Image.Image:
    """Draw a partition onto its image."""
    enlarge = -(-SIDE // max(image.shape[:2]))
    labels = partition.label_map.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    height, width = labels.shape
    pixels = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))
    pixels[labels == DROPPED] = (255, 0, 255)
    # White on one side of a boundary and black on the other shows on any background.
    vertical, horizontal = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    pixels[:, :-1][vertical] = pixels[:-1][horizontal] = 0
    pixels[:, 1:][vertical] = pixels[1:][horizontal] = 255
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for x, y in partition.centroids[partition.valid] * (width, height):
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(230, 20, 20), outline=(255, 255, 255))
    return picture
