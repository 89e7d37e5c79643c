"""Run an edit script on a canvas."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from elements_jax.editing import edits
from elements_jax.editing.edits import Canvas, Transform, element_mask
from elements_jax.editing.script import Compose, Continue, Delete, Duplicate, EditError, EditScript, Move, Resize

CanvasLoader = Callable[[str, Bool[np.ndarray, "H W"] | None], Canvas]
"""Maps an image's name to its canvas; for the mask see `EditSession.canvas`."""


@dataclass(frozen=True)
class Edited:
    """The result of a script on a canvas."""

    reference: Canvas
    """The canvas of the image that the edits started from: the input, or the last image continued from."""
    canvas: Canvas


def nothing_to_open(name: str, within: object = None) -> Any:
    """Raise EditError: the loader for scripts that name no image."""
    raise EditError(f"the script names the image {name!r}, which cannot be opened here")


def apply_script(script: EditScript, canvas: Canvas, open_image: CanvasLoader = nothing_to_open) -> Edited:
    """Run the edits of a script in order.

    Args:
        open_image: returns the canvas of the image named by a compose or continue edit.

    Raises EditError that names the edit, if an element does not exist or finds no free slot.
    """
    reference = canvas
    for i, edit in enumerate(script.edits):
        where = f"edits[{i}] ({edit.edit})"
        if not isinstance(edit, Continue) and edit.object is not None:
            raise EditError(f"{where}: objects can be selected only on a photograph; give element numbers")
        match edit:
            case Continue():
                reference = canvas = _continue(canvas, reference, edit, open_image)
            case Compose():
                canvas = _insert(canvas, open_image(edit.image, None), edit, script.tolerance, where)
            case Duplicate():
                canvas = _insert(canvas, canvas, edit, script.tolerance, where)
            case Delete():
                canvas = _delete(canvas, _select(canvas, edit.elements, where))
            case Move() | Resize():
                selected = _select(canvas, edit.elements, where)
                canvas = _transform(canvas, selected, transform_of(edit, canvas), script.tolerance)
    return Edited(reference, canvas)


# Compiled once per size: without jit, each would compile some thirty separate operations.
_transform, _delete, _compose = jax.jit(edits.transform), jax.jit(edits.delete), jax.jit(edits.compose)
_centre = jax.jit(edits.centre)


def transform_of(edit: Move | Resize | Duplicate | Compose, canvas: Canvas) -> Transform:
    """Return the geometry of an edit; `canvas` belongs to the image whose elements move."""
    shift = (0.0, 0.0) if isinstance(edit, Resize) else edit.by
    scale = 1.0 if isinstance(edit, Move) else edit.scale
    anchor = edit.anchor if isinstance(edit, Resize) else None
    if anchor is None:
        anchor = tuple(np.asarray(_centre(canvas, element_mask(canvas.num_elements, edit.elements))).tolist())
    scales = np.broadcast_to(np.asarray(scale, np.float32), 2)
    return Transform(jnp.asarray(scales), jnp.asarray(shift, jnp.float32), jnp.asarray(anchor, jnp.float32))


def _continue(canvas: Canvas, start: Canvas, edit: Continue, open_image: CanvasLoader) -> Canvas:
    """Fill the holes that edits left with elements of the named image; pixels dropped from the start stay dropped."""
    count = canvas.num_elements
    holes = (np.asarray(canvas.label_map) == count) & (np.asarray(start.label_map) != count)
    painted = open_image(edit.image, holes)
    as_it_lies = Transform(jnp.ones(2), jnp.zeros(2), jnp.zeros(2))
    filled, _ = _compose(canvas, painted, jnp.ones(count, bool), as_it_lies)
    return dataclasses.replace(filled, picture=painted.picture)


def _insert(canvas: Canvas, other: Canvas, edit: Duplicate | Compose, tolerance: float, where: str) -> Canvas:
    selected = _select(other, edit.elements, where)
    composed, slots = _compose(canvas, other, selected, transform_of(edit, other), tolerance)
    placed, wanted = int((np.asarray(slots) < canvas.num_elements).sum()), len(set(edit.elements))
    if placed < wanted:
        raise EditError(
            f"{where}: only {placed} of {wanted} elements fit: the others are outside the image, or no slot is free "
            "(insert them larger, insert fewer, or delete some elements first)"
        )
    return composed


def _select(canvas: Canvas, elements: Iterable[int], where: str) -> Any:
    """Return the selection mask. Raises EditError for a number without a live element."""
    valid = np.asarray(canvas.elements.valid)
    for n in elements:
        if n >= len(valid):
            raise EditError(f"{where}: element {n} does not exist; the image has elements 0 to {len(valid) - 1}")
        if not valid[n]:
            raise EditError(f"{where}: element {n} is empty or was deleted by an earlier edit")
    return element_mask(len(valid), tuple(elements))
