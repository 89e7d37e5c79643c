"""Where an edit sends an object, and what it leaves behind: the regions of target and source similarity.

By the edit script and the record's label map alone, so that every method can be judged, whatever it is made of:

    target similarity   SSIM, over the pixels where edited elements come to lie, between the result and pixel editing,
                        that is the input with the elements' own pixels moved there: how much of the object arrived.
                        A deletion has no target.
    source similarity   SSIM, over the pixels that a moved, resized or deleted element leaves and nothing comes to
                        cover, between the result and the input: whether the object is still there. Low is good.
                        What grows where it is leaves no such pixels.

Both see the pixels of their region alone (`metrics.masked_ssim`). Pixel editing with its source kept has 1 and 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from elements_jax.editing import apply
from elements_jax.edits import Canvas
from elements_jax.elements import ImageElements
from elements_jax.schema import DROPPED, Record
from elements_jax.script import Delete, EditScript, Move, Resize


@dataclass(frozen=True, eq=False)
class Arrival:
    """What an edit does to the pixels of a picture."""

    pasted: UInt8[np.ndarray, "H W 3"]
    """Pixel editing: the elements' pixels copied to where they go, all else left."""
    target: Bool[np.ndarray, "H W"]
    """Where moved, resized and inserted elements come to lie."""
    source: Bool[np.ndarray, "H W"]
    """What moved, resized and deleted elements leave empty."""


def arrival(script: EditScript, record: Record, open_record: Callable[[str], Record]) -> Arrival:
    """Run a script on a record's pixels.

    Args:
        open_record: gives the record that a compose edit names.

    Raises EditError where the script does not fit the record.
    """
    before = _canvas(record, 0)
    after = apply(script, before, lambda name, _: _canvas(open_record(name), 1)).canvas
    old, new = before.elements, after.elements
    differs = [
        np.any(np.asarray(a != b).reshape(len(a), -1), axis=1)
        for a, b in ((old.content, new.content), (old.position, new.position), (old.valid, new.valid))
    ]
    edited = np.logical_or.reduce(differs) & np.asarray(new.valid)

    left = np.zeros_like(edited)
    for edit in script.edits:
        if isinstance(edit, Move | Resize | Delete):
            left[list(edit.elements)] = True
    empty = np.asarray(after.label_map) == after.num_elements
    assert after.picture is not None
    return Arrival(
        np.asarray(after.picture), _pixels_of(edited, after), _pixels_of(left & np.asarray(old.valid), before) & empty
    )


def _canvas(record: Record, number: int) -> Canvas:
    """A record without a model: the content of its elements is what tells them apart, and from those of others."""
    count = record.settings["num_elements"]
    label_map = np.where(record.label_map == DROPPED, count, record.label_map).astype(np.int32)
    content = np.stack([np.full(count, number), np.arange(count)], axis=1).astype(np.float32)
    position = np.full((count, 4), 0.5, np.float32)  # changes with every move and resize, wherever it is
    valid = np.bincount(label_map.ravel(), minlength=count + 1)[:count] > 0
    elements = ImageElements(jnp.asarray(content), jnp.asarray(position), jnp.asarray(valid))
    return Canvas(elements, jnp.asarray(label_map), jnp.asarray(record.image))


def _pixels_of(elements: Bool[np.ndarray, " N"], canvas: Canvas) -> Bool[np.ndarray, "H W"]:
    return np.append(elements, False)[np.asarray(canvas.label_map)]
