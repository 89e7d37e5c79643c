"""Edits by the decoder, as in the paper: the model generates the edited region of each window.

Each edit applies to the elements of a window that are mostly covered by its selection.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer, UInt8
from scipy import ndimage

from elements_jax.data.photo import Photo
from elements_jax.editing import edits
from elements_jax.editing.apply import apply_script
from elements_jax.editing.edits import Canvas
from elements_jax.editing.script import Compose, Delete, Duplicate, Edit, EditError, EditScript, Move, Resize
from elements_jax.photograph.colour import from_srgb, like, rgb8, to_srgb
from elements_jax.photograph.file import Photograph, Pixels
from elements_jax.photograph.steps import Step, placement_of
from elements_jax.photograph.window import Box, Window, box_of, windows

if TYPE_CHECKING:
    from elements_jax.pipeline.session import EditSession

Label = Callable[[UInt8[np.ndarray, "S S 3"]], Integer[np.ndarray, "S S"]]
"""Segments an image of the model's size into elements."""


def repaint(
    editing: "EditSession",
    photograph: Photograph,
    steps: Sequence[Step],
    script: EditScript,
    label: Label,
    report: Callable[[], bool],
) -> Pixels:
    """Return the photograph after the edits; pixels beyond a feather around the edits stay unchanged.

    Raises EditError that names an edit without room, or whose object an earlier one deleted.
    """
    if not steps:
        return photograph.pixels
    size = editing.pipeline.config.elements.image_size
    result = photograph.pixels.copy()
    for window, numbers in windows([_reach(step, photograph.size) for step in steps], photograph.size, size):
        painted, weight = _repaint(editing, photograph, window, [steps[n] for n in numbers], script, label, report)
        part, new = result[window.here], like(painted, result)
        over = weight > 0
        share = weight[over][:, None]
        part[..., : new.shape[2]][over] = np.rint(
            share * new[over] + (1 - share) * part[..., : new.shape[2]][over]
        ).astype(part.dtype)
    return result


def _reach(step: Step, size: tuple[int, int]) -> Box:
    """Return the box around an edit's source and target, within a photograph of (height, width)."""
    source = box_of(step.selection.mask)
    assert source is not None
    boxes = [] if step.other is not None else [source]
    if not isinstance(step.edit, Delete):
        left, top, right, bottom = placement_of(step, source, size).of(source)
        boxes.append((int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))))
    low = np.clip(np.min([box[:2] for box in boxes], axis=0), 0, (size[1] - 1, size[0] - 1))
    high = np.clip(np.max([box[2:] for box in boxes], axis=0), 1, (size[1], size[0]))
    return int(low[0]), int(low[1]), int(max(high[0], low[0] + 1)), int(max(high[1], low[1] + 1))


def _repaint(
    editing: "EditSession",
    photograph: Photograph,
    window: Window,
    steps: Sequence[Step],
    script: EditScript,
    label: Label,
    report: Callable[[], bool],
) -> tuple[UInt8[np.ndarray, "h w 3"], np.ndarray]:
    """Return a window's image at the photograph's resolution, and its weight: 1 where edited, 0 beyond a feather."""
    photo = _photo(editing, photograph, window, label)
    start = editing.canvas(photo)
    others = dict[str, Canvas]()
    element_edits = list[Edit]()
    for n, step in enumerate(steps):
        if step.other is None:
            element_edits.append(_on_elements(step, _under(start, window, step), window, photograph.size))
            continue
        source = box_of(step.selection.mask)
        assert source is not None
        height, width = step.other.size
        ((other_window, _),) = windows([source], (height, width), photo.image.shape[0])
        canvas = others[str(n)] = editing.canvas(_photo(editing, step.other, other_window, label))
        element_edits.append(
            _composed(step, str(n), _under(canvas, other_window, step), source, other_window, window, photograph.size)
        )
    script = EditScript(tuple(element_edits), script.prompt, script.seed, script.tolerance, script.negative_prompt,
                        preserve=True, sampling=script.sampling)  # fmt: skip
    edited = apply_script(script, start, lambda name, within: others[name])
    picture = from_srgb(editing.decode(photo, edited, script, report), photograph)
    region = np.asarray(edits.edited_region(edited.reference, edited.canvas))
    return window.enlarge(picture), _feather(region, window)


def _photo(editing: "EditSession", photograph: Photograph, window: Window, label: Label) -> Photo:
    size = editing.pipeline.config.elements.image_size
    image = to_srgb(window.resample(rgb8(photograph.pixels), size), photograph)
    return Photo(image, label(image), (0, 0, size, size))


def _under(canvas: Canvas, window: Window, step: Step) -> tuple[int, ...]:
    """Return the elements of a window that a step's selection mostly covers; at least the most covered one."""
    mask = window.resample_mask(step.selection.mask, canvas.label_map.shape[0], least=0.0)
    covered = np.asarray(edits.covered_fraction(canvas.label_map, jnp.asarray(mask), canvas.num_elements))
    if not covered.any():
        raise EditError(f"{step.where}: its selection covers no element of the window")
    return tuple(np.flatnonzero((covered > 0.5) | (covered == covered.max())).tolist())


def _on_elements(
    step: Step, elements: tuple[int, ...], window: Window, size: tuple[int, int]
) -> Move | Resize | Delete | Duplicate:
    """Convert an edit to a window's elements, with lengths in units of the window's side."""
    edit, frame = step.edit, step.selection.frame
    if isinstance(edit, Delete):
        return Delete(elements)
    shift = frame.length(getattr(edit, "by", (0.0, 0.0)))
    by = shift[0] / window.side, shift[1] / window.side
    match edit:
        case Move():
            return Move(elements, by)
        case Duplicate():
            return Duplicate(elements, by, edit.scale)
    assert isinstance(edit, Resize)
    anchor = None
    if edit.anchor is not None:
        x, y = frame.point(edit.anchor)
        anchor = (x - window.left) / window.side, (y - window.top) / window.side
    return Resize(elements, edit.scale, anchor)


def _composed(
    step: Step,
    name: str,
    elements: tuple[int, ...],
    source: Box,
    other: Window,
    window: Window,
    size: tuple[int, int],
) -> Compose:
    """Convert a compose edit between two windows, identifying their own coordinates."""
    placement = placement_of(step, source, size)
    x, y = (source[0] + source[2]) / 2, (source[1] + source[3]) / 2
    left, top, right, bottom = placement.of(source)
    by = (
        ((left + right) / 2 - window.left) / window.side - (x - other.left) / other.side,
        ((top + bottom) / 2 - window.top) / window.side - (y - other.top) / other.side,
    )
    ratio = other.side / window.side
    return Compose(name, elements, by, (placement.scale[0] * ratio, placement.scale[1] * ratio))


def _feather(region: Bool[np.ndarray, "S S"], window: Window) -> np.ndarray:
    """Return weights at the photograph's resolution: 1 in the edited region, 0 beyond two of the model's pixels."""
    cell = window.side / region.shape[0]
    mask = window.enlarge(np.repeat(region[..., None].astype(np.uint8) * 255, 3, axis=2))[..., 0] > 127
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    distance = ndimage.distance_transform_edt(~mask)
    return np.clip(1 - (distance - cell / 2) / max(1.0, 1.5 * cell), 0, 1).astype(np.float32)
