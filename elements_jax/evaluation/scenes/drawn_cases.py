"""Edits of held-out `scenes` whose true result is known, as edit scripts: cases for any method and any partition.

A mask specifies the edited object, and the script names the elements under it. Thus the same edits can be run under
several partitions (Figures 15 and 16) with the same truth and the same compared region.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from elements_jax.data.record import DROPPED, Record
from elements_jax.editing.script import Compose, Delete, Duplicate, EditScript, Move, Resize
from elements_jax.evaluation.methods.morphology import dilation
from elements_jax.evaluation.results import Case, Task
from elements_jax.scenes import drawn
from elements_jax.scenes.drawn import COLOURS, Scene, Shape

OBJECT_SHARE = 0.5  # an element belongs to an object if at least this share of its pixels does
KINDS = ("move", "shrink", "enlarge", "delete", "compose", "variation")
FAR = 8.0  # mean difference out of 255: two scenes differ by more
MOST_SHAPES = 4
"""Maximum number of shapes in a scene: the caption of more would be truncated."""


def scene_of(record: Record) -> Scene:
    """Return the scene that a record shows. Raises ValueError if the record is from another dataset."""
    name, _, seed = record.source_id.rpartition("/")[2].removesuffix(".png").partition("-")
    if name != "scene" or not seed.isdigit():
        raise ValueError(f"record {record.source_id!r} is not a scene: expected an id like scene-0000042.png")
    return drawn.scene(int(seed), record.image.shape[0])


def require_its_picture(record: Record, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """Raise ValueError if a record does not show its scene, up to JPEG errors."""
    difference = np.abs(picture.astype(float) - record.image).mean()
    if difference > FAR:
        raise ValueError(f"record {record.source_id!r} does not show its scene: write `scenes` again")


def identity(records: Iterable[Record]) -> str:
    """Return a string that identifies these records, by images and label maps."""
    crc, count = 0, 0
    for record in records:
        crc, count = zlib.crc32(record.label_map.tobytes(), zlib.crc32(record.image.tobytes(), crc)), count + 1
    return f"{count} records, {crc:08x}"


def scene_cases(records: Sequence[Record]) -> Iterator[Task]:
    """Yield for each record's scene a move, a resize (its seed decides whether it shrinks or enlarges), a deletion, a
    composition with the next record's scene, and a variation.

    A full scene has no composition, nor has a single scene. Everything except the elements follows from the scenes'
    seeds. An edit is omitted if no element has a pixel of its object.
    """
    for i, record in enumerate(records):
        scene = scene_of(record)
        require_its_picture(record, drawn.render(scene)[0])
        for edit in drawn.sample_edits(scene, seed=len(scene.shapes)):
            yield from _edit_case(record, scene, edit)
        other = records[(i + 1) % len(records)]
        if other is not record and len(scene.shapes) < MOST_SHAPES:
            yield from _composition(record, scene, other)
        yield from _variation(record, scene)


def elements_under(
    label_map: Integer[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"], share: float = OBJECT_SHARE
) -> tuple[int, ...]:
    """Return the elements with at least this share under a mask; if there is none, the one with the most pixels.

    Returns None if no element has a pixel there.
    """
    live = label_map != DROPPED
    area = np.bincount(label_map[live], minlength=1)
    under = np.bincount(label_map[live & mask], minlength=len(area))
    chosen = np.flatnonzero((under > 0) & (under >= share * area))
    if not len(chosen) and under.any():
        chosen = np.flatnonzero(under == under.max())[:1]
    return tuple(chosen.tolist())


def _edit_case(record: Record, scene: Scene, edit: drawn.Edit) -> Iterator[Task]:
    shape, edited = scene.shapes[edit.k - 1], scene.edited(edit)
    _, objects = drawn.render(scene)
    truth, true_objects = drawn.render(edited)
    elements = elements_under(record.label_map, objects == edit.k)
    target = np.zeros_like(objects, bool) if edit.kind == "delete" else true_objects == edit.k
    step: Move | Resize | Delete
    if edit.kind == "move":
        kind, step = "move", Move(elements, (edit.dx, edit.dy))
        words = f"move the {shape.words} {_direction(edit.dx, edit.dy)}"
    elif edit.kind == "resize":
        kind, size = ("shrink", "smaller") if edit.scale < 1 else ("enlarge", "larger")
        step, words = Resize(elements, edit.scale, shape.centre), f"make the {shape.words} {size}"
    else:
        kind, step, words = "delete", Delete(elements), f"remove the {shape.words}"
    yield from known_task(record, kind, words, shape.words, step, edited.caption, truth, (objects == edit.k) | target)


def _composition(record: Record, scene: Scene, other: Record) -> Iterator[Task]:
    """Insert the frontmost object of the other scene where there is most room."""
    theirs = scene_of(other)
    _, objects = drawn.render(theirs)
    k = len(theirs.shapes)
    shape = theirs.shapes[k - 1]
    placed = drawn.roomiest(shape, scene, seed=len(scene.shapes))
    whole = scene.insert(placed)
    truth, true_objects = drawn.render(whole)
    dx, dy = np.subtract(placed.centre, shape.centre).tolist()
    step = Compose(other.source_id, elements_under(other.label_map, objects == k), (dx, dy))
    words = f"add {drawn.with_article(shape.words)} {_place(*placed.centre)}"
    added = true_objects == len(whole.shapes)
    yield from known_task(record, "compose", words, shape.words, step, whole.caption, truth, added)


def _variation(record: Record, scene: Scene) -> Iterator[Task]:
    """Change the colour of an object. The prompt allows many images; the truth is the one that keeps shape, place and
    pattern, which only the deleted elements contained. Errors serve to compare methods and are not near zero for any.
    """
    k = len(scene.shapes)  # the frontmost
    shape = scene.shapes[k - 1]
    varied = recoloured(shape, _other_colour(scene))
    edited = scene.delete(k).insert(varied)
    _, objects = drawn.render(scene)
    truth, _ = drawn.render(edited)
    step = Delete(elements_under(record.label_map, objects == k))
    words = f"make the {shape.words} {varied.texture.colour}"
    yield from known_task(record, "variation", words, shape.words, step, edited.caption, truth, objects == k)


def recoloured(shape: Shape, colour: str) -> Shape:
    """Return the shape with its pattern in another colour; the second tone stays lighter or darker, as before."""
    lighter = sum(shape.texture.tones[1]) > sum(shape.texture.tones[0])
    texture = dataclasses.replace(shape.texture, colour=colour, tones=drawn.tones_of(colour, lighter))
    return dataclasses.replace(shape, texture=texture)


def _other_colour(scene: Scene) -> str:
    """Return the colour farthest from all colours of the scene."""
    shown = [tone for each in (scene.background, *(s.texture for s in scene.shapes)) for tone in each.tones]
    return max(COLOURS, key=lambda name: min(np.linalg.norm(np.subtract(COLOURS[name], tone)) for tone in shown))


def known_task(
    record: Record,
    kind: str,
    instruction: str,
    words: str,
    edit: Move | Resize | Delete | Duplicate | Compose,
    prompt: str,
    truth: UInt8[np.ndarray, "H W 3"],
    changes: Bool[np.ndarray, "H W"],
) -> Iterator[Task]:
    """Yield one edit of a record as a task, or nothing if it has no element.

    Args:
        words: the edited object.
        changes: pixels where the truth differs from the record's image; the region adds a margin.
    """
    if edit.elements:
        name = f"{record.source_id.rpartition('/')[2].removesuffix('.png').rpartition('scene-')[2]}-{kind}"
        made = Case(name, kind, instruction, record.source_id, prompt, EditScript((edit,), prompt), words)
        yield Task(made, truth, dilation(changes, max(1, changes.shape[0] // 32)))


def _direction(dx: float, dy: float) -> str:
    """Describe the nearest of eight directions."""
    across = ("to the left", "", "to the right")[1 + _sign(dx, dy)]
    along = ("up", "", "down")[1 + _sign(dy, dx)]
    return " and ".join(word for word in (along, across) if word)


def _sign(length: float, other: float) -> int:
    return 0 if abs(length) < np.tan(np.pi / 8) * abs(other) else int(np.sign(length))


def _place(x: float, y: float) -> str:
    down, across = (int(3 * min(max(at, 0.0), 0.999)) for at in (y, x))
    if (down, across) == (1, 1):
        return "in the middle"
    return " ".join(word for word in ("at the", ("top", "", "bottom")[down], ("left", "", "right")[across]) if word)
