"""The regions of `arrived-ssim` and `left-behind-ssim`: where an edit sends an object, and which pixels it leaves.

They depend only on the edit script and the record's label map, so that any method can be evaluated:

    arrived-ssim       SSIM between the result and pixel editing, which copies the elements' own pixels to where the
                       edit puts them, over the pixels on which they land, the `target`. A deletion has none.
    left-behind-ssim   SSIM between the result and the input, over the pixels that a moved, resized or deleted element
                       leaves uncovered, the `source`: how much of the object is still there. Lower is better. An
                       object that grows in place leaves none.

Both consider only the pixels of their region (`image_quality.masked_ssim`). Pixel editing itself, which keeps the
source, scores 1 on both.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from elements_jax.data.record import DROPPED, Record
from elements_jax.editing.edits import Canvas
from elements_jax.editing.script import EditScript
from elements_jax.elements import ImageElements
from elements_jax.evaluation.methods.pixel_editing import pixel_edit


def displacement(script: EditScript, record: Record, open_record: Callable[[str], Record]) -> Mapping[str, np.ndarray]:
    """Compute the inputs of both metrics: the image `pasted`, and the masks `target` and `source`.

    Args:
        open_record: returns the record named by a compose edit.

    Raises EditError if the script does not fit the record.
    """
    edited = pixel_edit(script, _canvas(record, 0), lambda name, _: _canvas(open_record(name), 1))
    return {"pasted": edited.picture, "target": edited.pasted, "source": edited.hole}


def _canvas(record: Record, number: int) -> Canvas:
    """Build a canvas without a model. The content of an element only identifies the record and the element."""
    count = record.settings["num_elements"]
    label_map = np.where(record.label_map == DROPPED, count, record.label_map).astype(np.int32)
    content = np.stack([np.full(count, number), np.arange(count)], axis=1).astype(np.float32)
    position = np.full((count, 4), 0.5, np.float32)  # all equal: only changes matter here
    valid = np.bincount(label_map.ravel(), minlength=count + 1)[:count] > 0
    elements = ImageElements(jnp.asarray(content), jnp.asarray(position), jnp.asarray(valid))
    return Canvas(elements, jnp.asarray(label_map), jnp.asarray(record.image))
