"""Edits of image elements: move, resize, delete and compose, as pure functions on a `Canvas` (Section 3.3).

A pixel is covered by at most one live element: elements covered by a moved or resized one are deleted. Collisions are
decided per pixel, since the boxes of irregular elements overlap even in an unedited image.

Every function works on one image, inside or outside jit; `jax.vmap` makes it work on a batch.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from elements_jax.elements import ImageElements
from elements_jax.typing import pytree_dataclass


@pytree_dataclass
class Canvas:
    """The elements of one image and the pixels they cover."""

    elements: ImageElements  # without batch dimension: content (N, D), position (N, 4), valid (N,)
    label_map: Int[Array, "*B H W"]  # the element that covers a pixel; N if none does
    picture: UInt8[Array, "*B H W 3"] | None = None  # its pixels, which edits copy along as a preview

    @property
    def num_elements(self) -> int:
        """N, counting elements that are not live."""
        return self.elements.valid.shape[-1]

    def __repr__(self) -> str:
        *batch, height, width = self.label_map.shape
        several = "".join(f"{size} x " for size in batch)
        return f"Canvas({several}{width} x {height} px, {self.num_elements} elements)"


@pytree_dataclass
class Transform:
    """x' = anchor + scale * (x - anchor) + shift, in coordinates normalised to the image."""

    scale: Float[Array, ""] | Float[Array, "2"]  # one for both axes, or one per axis (x, y)
    shift: Float[Array, "2"]  # (x, y)
    anchor: Float[Array, "2"]  # (x, y)


def stack(canvases: Sequence[Canvas]) -> Canvas:
    """Stack the canvases of several images into one with a batch dimension."""
    return _stack(*canvases)


def unstack(canvases: Canvas) -> list[Canvas]:
    """Split a batch into one canvas per image, on JAX's default device."""
    host = jax.device_get(canvases)
    return [jax.tree.map(lambda leaf: jnp.asarray(leaf[i]), host) for i in range(len(host.label_map))]  # noqa: B023


@jax.jit  # without jit, every leaf would compile separately
def _stack(*canvases: Canvas) -> Canvas:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *canvases)


Selection = Bool[Array, " N"] | Bool[np.ndarray, " N"] | Sequence[int]
"""Elements, as a mask (also inside jit) or by number."""


def element_mask(num_elements: int, indices: Sequence[int]) -> Bool[Array, " N"]:
    """Return the mask of these elements. It is built on the host, so that a new number of them compiles nothing.

    Raises ValueError for a number outside [0, num_elements).
    """
    if wrong := [n for n in indices if not 0 <= n < num_elements]:
        raise ValueError(f"elements {wrong} do not exist: the image has elements 0 to {num_elements - 1}")
    mask = np.zeros(num_elements, bool)
    mask[list(indices)] = True
    return jnp.asarray(mask)


def _mask(canvas: Canvas, selected: Selection) -> Bool[Array, " N"]:
    if isinstance(selected, jax.Array | np.ndarray):
        return jnp.asarray(selected, bool)
    return element_mask(canvas.num_elements, selected)


def covered_fraction(label_map: Int[Array, "H W"], mask: Bool[Array, "H W"], num_elements: int) -> Float[Array, " N"]:
    """Return the share of each element's pixels under a mask; 0 for an element without pixels."""
    labels = label_map.reshape(-1)
    area = jax.ops.segment_sum(jnp.ones(labels.shape), labels, num_segments=num_elements + 1)[:-1]
    under = jax.ops.segment_sum(mask.reshape(-1).astype(jnp.float32), labels, num_segments=num_elements + 1)[:-1]
    return under / jnp.maximum(area, 1)


def centre(canvas: Canvas, selected: Selection) -> Float[Array, "2"]:
    """Return the normalised centre (x, y) of the selection's bounding box, the anchor of a resize; NaN if empty."""
    inside = _lookup(_mask(canvas, selected), canvas.label_map)
    bounds = []
    for axis, length in ((0, inside.shape[1]), (1, inside.shape[0])):
        hit = inside.any(axis=axis)
        first, last = jnp.argmax(hit), length - 1 - jnp.argmax(hit[::-1])
        bounds.append((first + last + 1) / (2 * length))
    return jnp.where(inside.any(), jnp.stack(bounds), jnp.nan).astype(jnp.float32)


def transform(canvas: Canvas, selected: Selection, by: Transform, tolerance: Float[Array, ""] | float = 0.0) -> Canvas:
    """Move and resize the selected elements; their content stays, and elements they cover are deleted (Section 3.3).

    An unselected element is deleted when more than `tolerance` of its pixels are covered; otherwise it loses only those
    pixels. A selected element is deleted when none of its pixels stays inside the image.
    """
    count, selected = canvas.num_elements, _mask(canvas, selected)
    arrived, picture = _arrivals(canvas, selected, by)
    rest = _make_room(delete(canvas, selected), arrived < count, tolerance)
    elements = replace(
        rest.elements,
        position=_transform_position(canvas.elements.position, selected, by),
        valid=rest.elements.valid | _present(arrived, count),
    )
    return _lay(replace(rest, elements=elements), arrived, picture)


def move(
    canvas: Canvas,
    selected: Selection,
    by: Float[Array, "2"] | Sequence[float],
    tolerance: Float[Array, ""] | float = 0.0,
) -> Canvas:
    """Move the selected elements by (x, y), in units of the image's width and height; see `transform`."""
    shift = jnp.asarray(by, jnp.float32)
    return transform(canvas, selected, Transform(jnp.float32(1), shift, jnp.zeros(2)), tolerance)


def resize(
    canvas: Canvas,
    selected: Selection,
    scale: Float[Array, ""] | float,
    tolerance: Float[Array, ""] | float = 0.0,
) -> Canvas:
    """Resize the selected elements by `scale` about the selection's own centre; see `transform`."""
    by = Transform(jnp.float32(scale), jnp.zeros(2), centre(canvas, selected))
    return transform(canvas, selected, by, tolerance)


def delete(canvas: Canvas, selected: Selection) -> Canvas:
    """Delete the selected elements: their tokens become zero and stay in the sequence (Section 3.3)."""
    selected = _mask(canvas, selected)
    elements = replace(canvas.elements, valid=canvas.elements.valid & ~selected)
    gone = _lookup(selected, canvas.label_map)
    return replace(canvas, elements=elements, label_map=jnp.where(gone, canvas.num_elements, canvas.label_map))


def compose(
    canvas: Canvas,
    other: Canvas,
    selected: Selection,
    by: Transform,
    tolerance: Float[Array, ""] | float = 0.0,
) -> tuple[Canvas, Int[Array, " N"]]:
    """Insert selected elements of another image; target elements that they cover are deleted (Section 4.3).

    Returns:
        The canvas, and for each element of `other` its new slot, or N if it was not inserted. Inserted elements take
        the slots of deleted and empty elements, so that N stays the same; if slots run out, the last elements of the
        selection are not inserted.
    """
    count, selected = canvas.num_elements, _mask(other, selected)
    arrived, picture = _arrivals(other, selected, by)
    room = _make_room(canvas, arrived < count, tolerance)

    present = _present(arrived, count)
    free_first = jnp.argsort(room.elements.valid, stable=True)
    rank = jnp.cumsum(present) - 1
    fits = present & (rank < jnp.sum(~room.elements.valid))
    slot = jnp.where(fits, free_first[rank], count)

    inserted = replace(
        other.elements, position=_transform_position(other.elements.position, selected, by), valid=present
    )
    elements = jax.tree.map(lambda mine, new: mine.at[slot].set(new, mode="drop"), room.elements, inserted)
    return _lay(replace(room, elements=elements), jnp.append(slot, count)[arrived], picture), slot


@jax.jit  # without jit, a dozen operations would compile separately
def edited_region(before: Canvas, after: Canvas) -> Bool[Array, "H W"]:
    """Return the pixels that may change between two canvases of one image; all others may be kept.

    These are the pixels that passed to another element or to none, and all pixels of an element that was moved, resized
    or inserted, even those it still covers. An element that only lost some pixels keeps the others.
    """
    old, new = before.elements, after.elements
    # Content is compared as well, since an inserted element may have the number of a deleted one.
    same_content = jnp.all(old.content == new.content, axis=-1)
    same_place = jnp.all(old.position == new.position, axis=-1)
    edited = ~(same_content & same_place & (old.valid == new.valid))
    return (before.label_map != after.label_map) | _lookup(edited, after.label_map)


def _arrivals(
    canvas: Canvas, selected: Bool[Array, " N"], by: Transform
) -> tuple[Int[Array, "H W"], UInt8[Array, "H W 3"] | None]:
    """Return the labels of the selected elements where they land, N elsewhere, and the colours there."""
    source_y, source_x, inside = _source_pixels(canvas.label_map.shape, by)
    chosen = _lookup(selected, canvas.label_map)
    arrived = inside & chosen[source_y, source_x]
    picture = None
    if canvas.picture is not None:
        nearest = canvas.picture[source_y, source_x]
        picture = _resample(canvas.picture, chosen, by, nearest)
    return jnp.where(arrived, canvas.label_map[source_y, source_x], selected.shape[0]), picture


def _resample(
    picture: UInt8[Array, "H W 3"], chosen: Bool[Array, "H W"], by: Transform, otherwise: UInt8[Array, "H W 3"]
) -> UInt8[Array, "H W 3"]:
    """Interpolate the chosen pixels alone where they land, linearly and without aliasing; `otherwise` elsewhere."""
    height, width = chosen.shape
    size = jnp.asarray([width, height], jnp.float32)
    scale = jnp.broadcast_to(by.scale, 2).astype(jnp.float32)
    translation = by.anchor * size * (1 - scale) + jnp.round(by.shift * size)
    weight = chosen[..., None].astype(jnp.float32)
    weighted = jnp.concatenate([picture * weight, weight], axis=-1)
    landed = jax.image.scale_and_translate(
        weighted, weighted.shape, (0, 1), scale[::-1], translation[::-1], "linear", antialias=True
    )
    colours, weight = landed[..., :3], landed[..., 3:]
    mean = jnp.round(colours / jnp.maximum(weight, 1e-3)).astype(jnp.uint8)
    return jnp.where(weight > 1e-3, mean, otherwise)


def _lay(canvas: Canvas, arrived: Int[Array, "H W"], picture: UInt8[Array, "H W 3"] | None) -> Canvas:
    """Lay the arrived elements over a canvas."""
    here = arrived < canvas.num_elements
    if canvas.picture is not None and picture is not None:
        picture = jnp.where(here[..., None], picture, canvas.picture)
    return Canvas(canvas.elements, jnp.where(here, arrived, canvas.label_map), picture)


def _make_room(canvas: Canvas, mask: Bool[Array, "H W"], tolerance: Float[Array, ""] | float) -> Canvas:
    """Delete elements covered by the mask completely or by more than `tolerance`."""
    covered = covered_fraction(canvas.label_map, mask, canvas.num_elements)
    return delete(canvas, (covered > tolerance) | (covered >= 1))


def _present(label_map: Int[Array, "H W"], num_elements: int) -> Bool[Array, " N"]:
    """Return which elements have a pixel."""
    return jnp.zeros(num_elements + 1, bool).at[label_map.reshape(-1)].set(True)[:-1]


def _lookup(of_element: Bool[Array, " N"], label_map: Int[Array, "H W"]) -> Bool[Array, "H W"]:
    """Return the value of the element at each pixel; False without an element."""
    return jnp.append(of_element, False)[label_map]


def _transform_position(
    position: Float[Array, "N 4"], selected: Bool[Array, " N"], by: Transform
) -> Float[Array, "N 4"]:
    centroid = position[:, :2] + (by.scale - 1) * (position[:, :2] - by.anchor) + by.shift
    moved = jnp.concatenate([centroid, by.scale * position[:, 2:]], axis=-1)
    return jnp.where(selected[:, None], moved, position)


def _source_pixels(
    shape: tuple[int, ...], by: Transform
) -> tuple[Int[Array, "H W"], Int[Array, "H W"], Bool[Array, "H W"]]:
    """Return for each pixel (y, x) of the edited image the pixel that lands there, and whether one does.

    Mapping backwards from the target leaves no gaps. The shift is rounded to integer pixels, so that a move and its
    inverse restore the label map.
    """
    height, width = shape
    size = jnp.asarray([width, height], jnp.float32)
    anchor, shift = by.anchor * size, jnp.round(by.shift * size)
    y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    source = jnp.floor((jnp.stack([x, y], axis=-1) - shift - anchor) / by.scale + anchor).astype(jnp.int32)
    inside = jnp.all((source >= 0) & (source < size), axis=-1)
    source = jnp.clip(source, 0, size.astype(jnp.int32) - 1)
    return source[..., 1], source[..., 0], inside
