"""Edits of photo scenes whose true result is known, as edit scripts: cases for any method and any partition.

As in `scene_cases`, a mask specifies the object and the script names the elements under it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from elements_jax.data.record import Record
from elements_jax.editing.script import Compose, Delete, Duplicate, Move, Resize
from elements_jax.evaluation.results import Task
from elements_jax.evaluation.scenes.drawn_cases import elements_under, known_task, require_its_picture
from elements_jax.scenes.photographic import PhotoEdit, PhotoScene, photo_edits, photo_scene, render

WORDS = {
    "move": "move {}",
    "shrink": "make {} smaller",
    "enlarge": "make {} larger",
    "delete": "remove {}",
    "duplicate": "add a copy of {}",
    "compose": "add {}",
}


def photo_scene_cases(records: Sequence[Record], photographs: Sequence[Record]) -> Iterator[Task]:
    """Yield the edits of each record's photo scene: a move, both resizes, a deletion, a copy, and a composition with
    the next record's scene, as far as there is room.

    Args:
        records: records of photo scenes, under any partition.
        photographs: the records from which the scenes were made.

    Raises ValueError if a record is not a photo scene, or was made from other photographs.
    """
    scenes = [photo_scene(photographs, seed_of(record)) for record in records]
    for record, scene in zip(records, scenes, strict=True):
        require_its_picture(record, render(scene)[0])
    for i, (record, scene) in enumerate(zip(records, scenes, strict=True)):
        after = (i + 1) % len(records)
        for edit in photo_edits(scene, scenes[after], seed_of(record)):
            yield from _edit_case(record, scene, edit, records[after], scenes[after])


def seed_of(record: Record) -> int:
    """Return the seed of the photo scene that a record shows. Raises ValueError if it is from another dataset."""
    name, _, seed = record.source_id.rpartition("/")[2].removesuffix(".png").rpartition("-")
    if name != "photo-scene" or not seed.isdigit():
        raise ValueError(f"record {record.source_id!r} is not a photo scene: expected photo-scene-0000042.png")
    return int(seed)


def _edit_case(
    record: Record, scene: PhotoScene, edit: PhotoEdit, other: Record, other_scene: PhotoScene
) -> Iterator[Task]:
    assert edit.after is not None
    picture, objects = render(scene)
    truth, _ = render(edit.after)
    elements = elements_under(record.label_map, objects == 1)
    words = scene.objects[0].cutout.words
    step: Move | Resize | Delete | Duplicate | Compose
    match edit.kind:
        case "move":
            step = Move(elements, edit.by)
        case "shrink" | "enlarge":
            step = Resize(elements, edit.scale, edit.about)
        case "delete":
            step = Delete(elements)
        case "duplicate":
            step = Duplicate(elements, edit.by)
        case "compose":
            words = other_scene.objects[-1].cutout.words
            theirs = render(other_scene)[1] == len(other_scene.objects)
            step = Compose(other.source_id, elements_under(other.label_map, theirs), edit.by)
    changes = np.any(truth != picture, axis=-1)
    instruction = WORDS[edit.kind].format(words)
    yield from known_task(record, edit.kind, instruction, words, step, edit.after.caption, truth, changes)
