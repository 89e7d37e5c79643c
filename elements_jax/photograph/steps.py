"""The edits of a script on a photograph, each with its selection and its placement."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from elements_jax.editing.script import Compose, Continue, Delete, EditError, EditScript
from elements_jax.photograph.colour import adapted, rgb8
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.layers import Placement, place
from elements_jax.photograph.selecting import Frame, Selecting, Selection, Selector
from elements_jax.photograph.window import Box


@dataclass(frozen=True, eq=False)
class Step:
    """An edit of a script with its selection."""

    edit: Selecting
    selection: Selection
    where: str
    """Name of the edit in errors."""
    other: Photograph | None = None
    """The source photograph of a compose edit."""


def resolve(
    photograph: Photograph,
    script: EditScript,
    select: Selector,
    open_named: Callable[[str], Photograph],
) -> tuple[Photograph, list[Step]]:
    """Return the starting photograph, which is the last one continued from, and the edits after it.

    Raises EditError that names an edit without a selection, and the errors of `open_named`.
    """
    base, rgb, steps = photograph, rgb8(photograph.pixels), list[Step]()
    for i, edit in enumerate(script.edits):
        where = f"edits[{i}] ({edit.edit})"
        try:
            if isinstance(edit, Continue):
                result = open_named(edit.image)
                if result.size != photograph.size:
                    raise EditError(
                        f"{edit.image} does not have the photograph's size; continue needs an earlier result"
                    )
                base = replace(photograph, pixels=adapted(result, photograph), encoded=result.encoded)
                rgb, steps = rgb8(base.pixels), []
            elif isinstance(edit, Compose):
                other = open_named(edit.image)
                selection = select(other, rgb8(other.pixels), edit, script.fit)
                steps.append(Step(edit, selection, where, replace(other, pixels=adapted(other, base))))
            else:
                steps.append(Step(edit, select(base, rgb, edit, script.fit), where))
        except EditError as error:
            raise EditError(f"{where}: {error}") from error
    return base, steps


def placement_of(step: Step, around: Box | tuple[float, float, float, float], size: tuple[int, int]) -> Placement:
    """Return the placement of an edit's selection, with the box `around`, in a photograph of (height, width)."""
    edit, frame = step.edit, step.selection.frame
    assert not isinstance(edit, Delete)
    scale = np.broadcast_to(getattr(edit, "scale", 1.0), 2).astype(float)
    centre = (around[0] + around[2]) / 2, (around[1] + around[3]) / 2
    shift = frame.length(getattr(edit, "by", (0.0, 0.0)))
    if isinstance(edit, Compose):
        # An object of another photograph keeps its share of the image's width and its place in the image.
        target = frame if edit.object is None else Frame(0.0, 0.0, float(size[1]), float(size[0]))
        if edit.object is None:
            assert step.other is not None
            target = _same_square(frame, step.other.size, size)
        scale = scale * target.width / frame.width
        place_there = target.point(frame.inverse(centre))
        shift = target.length(edit.by)
        shift = shift[0] + place_there[0] - centre[0], shift[1] + place_there[1] - centre[1]
    anchor = getattr(edit, "anchor", None)
    at = centre if anchor is None else frame.point(anchor)
    return place((float(scale[0]), float(scale[1])), at, shift)


def _same_square(frame: Frame, other: tuple[int, int], size: tuple[int, int]) -> Frame:
    """Return the square of a photograph that corresponds to another's: the central one, or the one around all of it."""
    side = min(size) if frame.width == min(other) else max(size)
    return Frame((size[1] - side) / 2, (size[0] - side) / 2, float(side), float(side))
