"""Image elements: converts an image and its label map to patches, positions and sizes, and these to tokens.

Sections 3.1 and 3.2 of the paper. Everything runs inside jit, since stage 2 pairs an image with another image's label
map on the fly (random partition, Section 3.3).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from elements_jax.typing import pytree_dataclass

# A patch cell is empty if the element covers less than this share of it. Zero would widen every element by a full cell,
# and a half would lose thin ones; 0.21 widens a straight edge by a third of a cell, and shares are never exactly 0.21.
# The number is ours: the paper gives none.
MIN_COVERAGE = 0.21


@pytree_dataclass
class ImageElements:
    """The editable representation S = {(E(a_n), p_n)} of a batch of images (Equation 2).

    An element that is not valid is empty or deleted: its complete token is zero, content and embedded position.
    """

    content: Float[Array, "*B N D"]  # appearance code of each patch, from the content encoder
    position: Float[Array, "*B N 4"]  # (x, y, w, h) in [0, 1]: centroid, and size of the bounding box
    valid: Bool[Array, "*B N"]


@pytree_dataclass
class Patches:
    """The content encoder's input (`pixels`), and what it must not see (`position`)."""

    pixels: Float[Array, "*B N P P 3"]  # in [-1, 1]; zero where the box belongs to another element
    position: Float[Array, "*B N 4"]
    valid: Bool[Array, "*B N"]


# An element is rarely wider than two or three cells, so patches are cut from windows of this share of the image's
# sides, or of the first larger share that fits every element of the batch.
WINDOWS = (1 / 4, 1 / 2, 1)


@partial(jax.jit, static_argnames=("num_elements", "patch_size", "precision"))
def extract_patches(
    image: Float[Array, "B H W 3"],
    label_map: Int[Array, "B H W"],
    *,
    num_elements: int,
    patch_size: int,
    precision: lax.Precision = lax.Precision.HIGHEST,
) -> Patches:
    """Cut every element out of its image: bounding box, masked, resized to `patch_size` (anti-aliased bilinear).

    Args:
        image: pixels in [-1, 1].
        label_map: each pixel's element; labels outside [0, num_elements) belong to none.
        precision: precision of the resizing products. By default accelerators round them for their matrix units; at
            the highest precision they take as long on a GPU as a small network's gradient.

    The box is resized regardless of its aspect. Pixels of other elements count neither in colour nor in weight, which
    avoids dark fringes; cells that hardly overlap the element are zero (Section 3.2).
    """
    height, width = label_map.shape[1:]
    position, valid, box = jax.vmap(partial(_measure, num_elements=num_elements))(label_map)
    colour_and_one = jnp.concatenate([image, jnp.ones_like(image[..., :1])], axis=-1)
    windows = [(math.ceil(height * part), math.ceil(width * part)) for part in WINDOWS]
    extent = jnp.stack([(box[..., 2] - box[..., 0]).max() / width, (box[..., 3] - box[..., 1]).max() / height]).max()
    cut = [partial(_cut, window=window, patch_size=patch_size, precision=precision) for window in windows]
    smallest = sum(extent > part for part in WINDOWS[:-1])
    pixels = lax.switch(smallest, [jax.vmap(each) for each in cut], colour_and_one, label_map, box)
    return Patches(pixels=pixels.astype(jnp.float32), position=position, valid=valid)


def _measure(
    label_map: Int[Array, "H W"], *, num_elements: int
) -> tuple[Float[Array, "N 4"], Bool[Array, " N"], Int[Array, "N 4"]]:
    """Return position and validity of every element, and its bounding box (left, top, right, bottom)."""
    height, width = label_map.shape
    in_range = (label_map >= 0) & (label_map < num_elements)
    labels = jnp.where(in_range, label_map, num_elements).reshape(-1)  # the last segment collects dropped pixels
    y, x = (grid.reshape(-1) for grid in jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))

    def of_labels(reduce, values):
        return reduce(values, labels, num_segments=num_elements + 1)[:num_elements]

    area = of_labels(jax.ops.segment_sum, jnp.ones_like(labels))
    valid = area > 0
    mean_x, mean_y = (of_labels(jax.ops.segment_sum, v + 0.5) / jnp.maximum(area, 1) for v in (x, y))
    left, top = (jnp.where(valid, of_labels(jax.ops.segment_min, v), 0) for v in (x, y))
    right, bottom = (jnp.where(valid, of_labels(jax.ops.segment_max, v) + 1, 0) for v in (x, y))
    position = jnp.stack([mean_x / width, mean_y / height, (right - left) / width, (bottom - top) / height], axis=-1)
    return position.astype(jnp.float32), valid, jnp.stack([left, top, right, bottom], axis=-1)


def _cut(
    colour_and_one: Float[Array, "H W 4"],
    label_map: Int[Array, "H W"],
    box: Int[Array, "N 4"],
    *,
    window: tuple[int, int],
    patch_size: int,
    precision: lax.Precision,
) -> Float[Array, "N {patch_size} {patch_size} 3"]:
    """Cut the patches of an image, each from a window of (height, width) that contains its element."""
    height, width = window

    def one(n, box):
        left, top, right, bottom = box
        corner = jnp.minimum(top, label_map.shape[0] - height), jnp.minimum(left, label_map.shape[1] - width)
        own = lax.dynamic_slice(label_map, corner, window) == n
        seen = lax.dynamic_slice(colour_and_one, (*corner, 0), (*window, 4))
        rows_PxH = _resize_weights(top - corner[0], bottom - corner[0], height, patch_size)
        columns_PxW = _resize_weights(left - corner[1], right - corner[1], width, patch_size)
        # The resize is separable: two small matrix products over both the masked image and its mask.
        resized = jnp.einsum("py,yxc->pxc", rows_PxH, jnp.where(own[..., None], seen, 0), precision=precision)
        resized = jnp.einsum("qx,pxc->pqc", columns_PxW, resized, precision=precision)
        colour, coverage = resized[..., :3], resized[..., 3:]
        return jnp.where(coverage > MIN_COVERAGE, colour / jnp.maximum(coverage, MIN_COVERAGE), 0)

    # All elements at once would need num_elements masked images; sixteen keep the matrix unit busy.
    return lax.map(lambda args: one(*args), (jnp.arange(len(box)), box), batch_size=16)


def _resize_weights(
    start: Int[Array, ""], stop: Int[Array, ""], length: int, patch_size: int
) -> Float[Array, "{patch_size} {length}"]:
    """Return weights that resample pixels [start, stop) to `patch_size` cells with a triangle filter; rows sum to one.

    The triangle spans one cell when shrinking (anti-aliasing) and one pixel when enlarging (bilinear); it is truncated
    at the box.
    """
    extent = (stop - start).astype(jnp.float32)
    pixel = jnp.arange(length)
    centre = start + (jnp.arange(patch_size) + 0.5) * extent / patch_size
    distance = jnp.abs(pixel + 0.5 - centre[:, None])
    weight = jnp.maximum(0, 1 - distance / jnp.maximum(extent / patch_size, 1))
    weight = jnp.where((pixel >= start) & (pixel < stop), weight, 0)
    return weight / jnp.maximum(weight.sum(-1, keepdims=True), 1e-12)


def embed_position(values: Float[Array, "*rest S"], frequencies: int) -> Float[Array, "*rest 2*{frequencies}*S"]:
    """Return sine and cosine at octaves of half a period over [0, 1]: [sin(2^k pi v), cos(2^k pi v)]."""
    angles = values[..., None] * (jnp.pi * 2.0 ** jnp.arange(frequencies))
    features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return features.reshape(*values.shape[:-1], -1)


def element_tokens(elements: ImageElements, frequencies: int) -> Float[Array, "*B N E"]:
    """Return attention tokens: content and embedded position; zero for empty or deleted elements.

    Zero tokens stay in the sequence, so that its length is uniform (Section 3.3), and in the softmax.
    """
    embedded = embed_position(elements.position, frequencies)
    joined = jnp.concatenate([elements.content, embedded.astype(elements.content.dtype)], axis=-1)
    return jnp.where(elements.valid[..., None], joined, 0)
