"""Sample grids, which show a person how training goes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from PIL import Image, ImageDraw

from elements_jax.data.atomic import new_file

TILE = 128
"""Images are enlarged by an integer factor to about this side in pixels."""


def mean_colours(
    image: Float[Array, "B H W 3"], label_map: Int[Array, "B H W"], shown: Bool[Array, "B N"]
) -> Float[Array, "B H W 3"]:
    """Paint each element in its mean colour; elements not shown, and pixels of no element, are black."""

    def of_one(image, label_map, shown):
        count = shown.size
        labels = jnp.where((label_map >= 0) & (label_map < count), label_map, count).reshape(-1)
        total = jax.ops.segment_sum(image.reshape(-1, 3), labels, count + 1)
        area = jax.ops.segment_sum(jnp.ones((labels.size, 1)), labels, count + 1)
        colours = jnp.where(jnp.append(shown, False)[:, None], total / jnp.maximum(area, 1), -1)
        return colours[labels].reshape(image.shape)

    return jax.vmap(of_one)(image, label_map, shown)


def grid(rows: dict[str, Float[np.ndarray, "B H W 3"]]) -> UInt8[np.ndarray, "height width 3"]:
    """Draw rows of images in [-1, 1] as one image, each row under its name."""
    strips = []
    for name, images in rows.items():
        scale = max(1, TILE // images.shape[1])
        pixels = np.round((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
        pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
        pixels = np.pad(pixels, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
        strip = np.concatenate(pixels, axis=1)
        title = Image.new("RGB", (strip.shape[1], 14), "white")
        ImageDraw.Draw(title).text((2, 1), name, fill="black")
        strips += [np.asarray(title), strip]
    return np.concatenate(strips)


def save_png(path: Path, image: UInt8[np.ndarray, "height width 3"]) -> None:
    """Write an image, and make its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        Image.fromarray(image).save(file, "PNG")
