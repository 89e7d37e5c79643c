"""Pixel editing: an edit script run on the pixels of the elements, the paper's simplest baseline (Appendix A).

It uses our partition and script: elements' pixels are copied to their new place, and the source is left unchanged. The
starting image of SDEdit and inpainting has holes instead: pixels that the edited elements left and on which nothing
landed. An element that is deleted only because another landed on it leaves no hole, since pixel editing keeps
everything it does not touch.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from elements_jax.editing import edits
from elements_jax.editing.apply import CanvasLoader, apply_script
from elements_jax.editing.edits import Canvas
from elements_jax.editing.script import Delete, Edit, EditScript, Move, Resize
from elements_jax.evaluation.methods.morphology import closing

BLANK = 127
"""The grey of a hole: 0 in the range [-1, 1], as in the masked images of Stable Diffusion Inpainting. The paper only
says blank."""


@dataclass(frozen=True, eq=False)
class Step:
    """One edit of a script, on pixels."""

    edit: Edit
    before: UInt8[np.ndarray, "H W 3"]
    """The image before the edit."""
    source: Bool[np.ndarray, "H W"]
    """Pixels of moved, resized or deleted elements; empty for a copy or an insertion."""
    target: Bool[np.ndarray, "H W"]
    """Pixels on which something landed."""
    after: UInt8[np.ndarray, "H W 3"]
    left_empty: Bool[np.ndarray, "H W"]
    """Pixels without an element."""


@dataclass(frozen=True, eq=False)
class PixelEdit:
    """The result of pixel editing."""

    picture: UInt8[np.ndarray, "H W 3"]
    hole: Bool[np.ndarray, "H W"]
    pasted: Bool[np.ndarray, "H W"]
    """Pixels on which something landed."""
    steps: tuple[Step, ...]

    @property
    def blanked(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image with blank holes, from which SDEdit starts."""
        return np.where(self.hole[..., None], np.uint8(BLANK), self.picture)

    def closed_hole(self) -> Bool[np.ndarray, "H W"]:
        """The mask for inpainting: the holes after a morphological closing, without small gaps between elements.

        Pasted pixels stay. The squares are 1/64 of the image's side; the paper says "the morphological operation".
        """
        return closing(self.hole, max(1, self.hole.shape[0] // 64)) & ~self.pasted


def pixel_edit(script: EditScript, canvas: Canvas, open_image: CanvasLoader) -> PixelEdit:
    """Run a script on the pixels of a canvas. It and those of `open_image` must have a `picture`.

    Raises EditError like `apply_script`.
    """
    steps = tuple(_steps(script, canvas, open_image))
    hole, pasted = np.zeros((2, *canvas.label_map.shape), bool)
    for step in steps:
        hole = (hole | step.source) & step.left_empty
        pasted = (pasted & ~step.left_empty) | step.target
    return PixelEdit(steps[-1].after if steps else np.asarray(canvas.picture), hole, pasted, steps)


def _steps(script: EditScript, canvas: Canvas, open_image: CanvasLoader) -> Iterator[Step]:
    for edit in script.edits:
        before, canvas = canvas, apply_script(dataclasses.replace(script, edits=(edit,)), canvas, open_image).canvas
        labels_before, labels = np.asarray(before.label_map), np.asarray(canvas.label_map)
        left_empty = labels == canvas.num_elements
        source, target = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
        match edit:
            case Delete():
                source = np.isin(labels_before, edit.elements)
            case Move() | Resize():
                source, target = np.isin(labels_before, edit.elements), np.isin(labels, edit.elements)
            case _:
                target = np.asarray(edits.edited_region(before, canvas)) & ~left_empty
        pictures = np.asarray(before.picture), np.asarray(canvas.picture)
        yield Step(edit, pictures[0], source, target, pictures[1], left_empty)
