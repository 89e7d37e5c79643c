"""Running an edit script: on a canvas (`apply`), and from a photograph to a picture (`Editing`).

The command line and the editor both run scripts by an `Editing`, so that the same script gives the same bytes.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer, UInt8

from elements_jax.config import DiffusionConfig
from elements_jax.data.record import DROPPED
from elements_jax.diffusion.preserve import Preserve
from elements_jax.diffusion.samplers import SAMPLERS
from elements_jax.editing import edits
from elements_jax.editing.edits import Canvas, Transform, batched, selection
from elements_jax.editing.png import encode_png
from elements_jax.editing.script import (
    Compose,
    Continue,
    Delete,
    Duplicate,
    EditError,
    EditScript,
    Fit,
    Move,
    Resize,
    Sampling,
)
from elements_jax.models.method import Cancelled as Cancelled
from elements_jax.pipeline.pipeline import ElementsPipeline

SMALLEST = 1 / 8
"""The least area of an element that fills a hole, in areas of a cell of the grid: slivers would use up the slots."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph as the model takes it, divided into elements."""

    image: UInt8[np.ndarray, "S S 3"]
    label_map: Integer[np.ndarray, "S S"]
    """Each pixel's element, or DROPPED."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom of what is photograph; beyond it are margins."""


@dataclass(frozen=True)
class Edited:
    """What a script made of a canvas."""

    start: Canvas
    """What the picture shows that the edits began with: the input, or the one last continued from."""
    canvas: Canvas


class Editing:
    """A model, and a way to divide photographs, that scripts are run with. Decodes one picture at a time."""

    def __init__(self, pipeline: ElementsPipeline, divide: Callable[[bytes, Fit], Photo], segmenter: str):
        """`divide` makes a photo of an image file, or raises ValueError; `segmenter` names how, in results."""
        self.pipeline = pipeline
        self.open = divide
        self._made_by = {"weights": pipeline.checksum(), "segmenter": segmenter}
        self._one_at_a_time = threading.Lock()

    def canvas(self, photo: Photo, within: Bool[np.ndarray, "S S"] | None = None) -> Canvas:
        """Encode a photo; or of it the elements of the pixels under a mask alone, the largest first.

        Slivers under a mask, smaller than `SMALLEST`, are no elements.
        """
        label_map = photo.label_map
        if within is not None:
            count, size = self.pipeline.config.elements.num_elements, photo.label_map.size
            area = np.bincount(label_map[within & (label_map != DROPPED)], minlength=count)
            order = np.argsort(-area, kind="stable")
            new = np.full(DROPPED + 1, DROPPED, np.uint16)
            new[order] = np.arange(count)
            new[np.flatnonzero(area < SMALLEST * size / count)] = DROPPED
            label_map = np.where(within, new[label_map], DROPPED)
        return dataclasses.replace(self.pipeline.open(photo.image, label_map), picture=jnp.asarray(photo.image))

    def edit(self, photo: Photo, script: EditScript, open_photo: Callable[[str], Photo]) -> Edited:
        """Run the edits of a script. Raises EditError as `apply` does, and what `open_photo` raises."""
        return apply(script, self.canvas(photo), lambda name, within: self.canvas(open_photo(name), within))

    def decode(
        self, photo: Photo, edited: Edited, script: EditScript, report: Callable[[], bool] = lambda: True
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of an edited canvas, without its photo's margins.

        Args:
            report: called before each step of the sampler, when it is compiled; where it says False, decoding ends.

        Raises Cancelled in that case.
        """
        preserve = None
        if script.preserve:
            assert edited.start.picture is not None
            preserve = Preserve(edited.start.picture[None], edits.edited_region(edited.start, edited.canvas)[None])
        with self._one_at_a_time:
            picture = self.pipeline.decode(
                batched([edited.canvas]).elements,
                [script.prompt],
                seeds=[script.seed],
                negative_prompts=[script.negative_prompt],
                preserve=preserve,
                report=lambda timestep: report(),
                **decode_arguments(script.sampling, self.pipeline.config.diffusion),
            )[0]
        left, top, right, bottom = photo.box
        return picture[top:bottom, left:right]

    def png(self, picture: UInt8[np.ndarray, "h w 3"], script: EditScript) -> bytes:
        """The picture as a PNG with all that made it in its text chunks."""
        sampling = script.sampling.settings(self.pipeline.config.diffusion)
        return encode_png(picture, script, {**self._made_by, **sampling, "preserve": script.preserve})


def decode_arguments(sampling: Sampling, config: DiffusionConfig) -> dict[str, Any]:
    """How to sample, as arguments of `ElementsPipeline.decode`."""
    arguments = sampling.settings(config)
    if "element_guidance" in arguments:
        arguments["guidance"] = arguments["guidance"], arguments.pop("element_guidance")
    return arguments | {"sampler": SAMPLERS[arguments["sampler"]]}


Opener = Callable[[str, Bool[np.ndarray, "H W"] | None], Canvas]
"""From a picture's name to its canvas; with a mask, as `Editing.canvas`."""


def apply(script: EditScript, canvas: Canvas, open_image: Opener) -> Edited:
    """Run the edits of a script in their order.

    Args:
        open_image: gives the canvas of the image that a compose or continue edit names.

    Raises EditError naming the edit, when it names an element that is not there or finds no room.
    """
    start = canvas
    for i, edit in enumerate(script.edits):
        where = f"edits[{i}] ({edit.edit})"
        if not isinstance(edit, Continue) and edit.object is not None:
            raise EditError(
                f"{where}: an object can be selected on a photograph only; give the numbers of its elements"
            )
        match edit:
            case Continue():
                start = canvas = _continue(canvas, start, edit, open_image)
            case Compose():
                canvas = _insert(canvas, open_image(edit.image, None), edit, script.tolerance, where)
            case Duplicate():
                canvas = _insert(canvas, canvas, edit, script.tolerance, where)
            case Delete():
                canvas = _delete(canvas, _select(canvas, edit.elements, where))
            case Move() | Resize():
                selected = _select(canvas, edit.elements, where)
                canvas = _transform(canvas, selected, transform_of(edit, canvas), script.tolerance)
    return Edited(start, canvas)


# Compiled once for each size: run operation by operation each would be thirty programs, and as many waits.
_transform, _delete, _compose = jax.jit(edits.transform), jax.jit(edits.delete), jax.jit(edits.compose)
_centre = jax.jit(edits.centre)


def transform_of(edit: Move | Resize | Duplicate | Compose, canvas: Canvas) -> Transform:
    """The geometry of an edit; `canvas` is that of the image whose elements are moved."""
    shift = (0.0, 0.0) if isinstance(edit, Resize) else edit.by
    scale = 1.0 if isinstance(edit, Move) else edit.scale
    anchor = edit.anchor if isinstance(edit, Resize) else None
    if anchor is None:
        anchor = tuple(np.asarray(_centre(canvas, selection(canvas.num_elements, edit.elements))).tolist())
    scales = np.broadcast_to(np.asarray(scale, np.float32), 2)
    return Transform(jnp.asarray(scales), jnp.asarray(shift, jnp.float32), jnp.asarray(anchor, jnp.float32))


def _continue(canvas: Canvas, start: Canvas, edit: Continue, open_image: Opener) -> Canvas:
    """Elements of the named picture where edits have left none; what belonged to none before them stays as it is."""
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
            f"{where}: only {placed} of {wanted} elements find a place: they lie outside the image, or no slot is free "
            "(insert them larger, insert fewer, or delete some elements first)"
        )
    return composed


def _select(canvas: Canvas, elements: Iterable[int], where: str) -> Any:
    """The selection mask. Raises EditError for a number that names no live element."""
    valid = np.asarray(canvas.elements.valid)
    for n in elements:
        if n >= len(valid):
            raise EditError(f"{where}: element {n} does not exist; the image has elements 0 to {len(valid) - 1}")
        if not valid[n]:
            raise EditError(f"{where}: element {n} is empty or was deleted by an earlier edit")
    return selection(len(valid), tuple(elements))
