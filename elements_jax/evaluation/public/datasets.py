"""Public benchmarks of object edits: reads their files as tasks, and writes our results for their scorers.

None of their data is part of this project; the layouts follow their published evaluation code.

**ObjMove-A** (ObjectMover: Yu et al. 2025, arXiv:2503.08037; dataset Andyx/ObjectMover-Benchmark on the Hugging Face
hub), 200 photographs of a scene before and after an object was moved by hand. Read from the layout and the scorer in
LightMover's evaluation toolkit (GengzeZhou/LightMover_eval on GitHub), which says that it reuses ObjectMover's:

    FOLDER/real_001/src_input.jpg       the photograph
    FOLDER/real_001/src_mask_hr.png     white on the object
    FOLDER/real_001/tar_box_mask.png    a white box at its new place
    FOLDER/real_001/tar_input.jpg       the photograph with the object there; only the scorer reads it
    OUT/real_001_result.png             a result; the scorer accepts any size, we use the photograph's

**GeoBench-2D** (FreeFine: Zhu et al. 2025, arXiv:2507.23300; dataset CIawevy/GeoBenchMeta on the Hugging Face hub):
5,677 edits, of which we run the moves and resizes: elements do not rotate. Read from `evaluation/` of CIawevy/FreeFine
on GitHub:

    FOLDER/annotation_2d.json           its README's name; its code reads annotations_2d.json: both are accepted
        {IMAGE: {"instances": {INSTANCE: {EDIT: {"ori_img_path", "ori_mask_path", "edit_param", ...}}}}}
    OUT/Gen_results_elements/IMAGE/INSTANCE/EDIT.png
    OUT/generated_results_elements_2d.json    the same object for the finished edits, with "gen_img_path": the --path of
                                              metrics/main.py there

`edit_param` is [dx, dy, dz, rx, ry, rz, sx, sy, sz]: a shift in pixels of the image resized to 512 x 512, x to the
right and y down, angles, and factors about the centre of the mask's bounding box; an edit in 2D ignores dz and sz. Its
results are 512 x 512 pixels.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer
from PIL import Image

from elements_jax.data.atomic import new_file, read_file
from elements_jax.editing.script import Edit, Move, Resize
from elements_jax.evaluation.results import open_picture
from elements_jax.evaluation.scenes.drawn_cases import elements_under

GEOBENCH_SIDE = 512
GEOBENCH_PICTURES = "Gen_results_elements"
GEOBENCH_REPORT = "generated_results_elements_2d.json"
"""Size of GeoBench-2D's results."""

Mask = Bool[np.ndarray, "h w"]
Pair = tuple[float, float]
Box = tuple[int, int, int, int]
"""Left, top, right and bottom of the photograph within the model's image, in pixels; margins surround it."""


@dataclass(frozen=True)
class Motion:
    """The motion of an object: x' = anchor + scale * (x - anchor) + shift, in units of the photograph's sides."""

    scale: Pair
    shift: Pair
    anchor: Pair


@dataclass(frozen=True)
class Task:
    """One edit of a benchmark."""

    name: str
    """Name for messages."""
    photograph: Path
    mask: Path
    motion: Callable[[Mask], Motion]
    """Computes the motion from the object's mask."""
    result: Path
    """Path of the image to write, below the folder of results."""
    size: tuple[int, int] | None
    """Width and height of that image; None for those of the photograph."""


def objmove_a(folder: Path) -> list[Task]:
    """Read the tasks of ObjMove-A. Raises ValueError for any other folder."""
    samples = sorted(path.parent for path in folder.glob("real_*/src_input.jpg"))
    if not samples:
        raise ValueError(f"{folder}: expected ObjMove-A, with real_001/src_input.jpg and so on")

    def motion_to(box: Path) -> Callable[[Mask], Motion]:
        return lambda mask: motion_onto(mask, read_mask(box))

    return [
        Task(
            sample.name,
            sample / "src_input.jpg",
            sample / "src_mask_hr.png",
            motion_to(sample / "tar_box_mask.png"),
            Path(f"{sample.name}_result.png"),
            None,
        )
        for sample in samples
    ]


def geobench_2d(folder: Path) -> tuple[list[Task], int]:
    """Read the moves and resizes of GeoBench-2D, and count the other edits.

    Raises ValueError naming the file, the edit and the field.
    """
    tasks, others = list[Task](), 0
    for image, instance, edit, fields in _geobench_edits(*read_geobench(folder)):
        name = f"{image}/{instance}/{edit}"
        dx, dy, _, *angles, sx, sy, _ = map(float, fields["edit_param"])
        if any(angles):
            others += 1
            continue
        shift = dx / GEOBENCH_SIDE, dy / GEOBENCH_SIDE

        def motion(mask: Mask, scale: Pair = (sx, sy), shift: Pair = shift) -> Motion:
            return Motion(scale, shift, bounds(mask)[0])

        photograph, mask = (folder / fields[key] for key in ("ori_img_path", "ori_mask_path"))
        result = Path(GEOBENCH_PICTURES, image, instance, f"{edit}.png")
        tasks.append(Task(name, photograph, mask, motion, result, (GEOBENCH_SIDE, GEOBENCH_SIDE)))
    return tasks, others


def write_geobench_report(folder: Path, out: Path) -> Path:
    """Write the input of GeoBench's scorer for all existing results, and return its path."""
    annotation, path = read_geobench(folder)
    report: dict[str, Any] = {}
    for image, instance, edit, fields in _geobench_edits(annotation, path):
        picture = out / GEOBENCH_PICTURES / image / instance / f"{edit}.png"
        if picture.is_file():
            edits = report.setdefault(image, {"instances": {}})["instances"].setdefault(instance, {})
            edits[edit] = {**fields, "gen_img_path": str(picture.resolve())}
    with new_file(out / GEOBENCH_REPORT) as file:
        file.write(json.dumps(report, ensure_ascii=False, indent=1).encode())
    return out / GEOBENCH_REPORT


def read_geobench(folder: Path) -> tuple[dict[str, Any], Path]:
    """Read GeoBench-2D's annotation; return it and its path. Raises ValueError if it is missing or invalid."""
    names = ("annotation_2d.json", "annotations_2d.json")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(f"{folder}: expected GeoBenchMeta, with {' or '.join(names)}")
    try:
        annotation = json.loads(read_file(path))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(annotation, dict):
        raise ValueError(f"{path}: expected an object of images")
    return annotation, path


def _geobench_edits(annotation: dict[str, Any], path: Path) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return image, instance, edit and validated fields of every edit."""
    found = []
    for image, of_image in annotation.items():
        for instance, edits in _object(of_image, "instances", f"{path}: {image}").items():
            for edit in edits if isinstance(edits, dict) else ():
                where = f"{path}: {image}.instances.{instance}.{edit}"
                fields = _object(edits, edit, f"{path}: {image}.instances.{instance}")
                if any(Path(part).name != part for part in (image, instance, edit)):
                    raise ValueError(f"{where}: expected names without slashes")
                for key in ("ori_img_path", "ori_mask_path"):
                    if not isinstance(fields.get(key), str):
                        raise ValueError(f"{where}.{key}: expected a path")
                numbers = fields.get("edit_param")
                if not isinstance(numbers, list) or len(numbers) != 9 or not all(map(_is_number, numbers)):
                    raise ValueError(f"{where}.edit_param: expected nine numbers, got {numbers}")
                if min(numbers[6:]) <= 0:
                    raise ValueError(f"{where}.edit_param: expected factors above 0, got {numbers[6:]}")
                found.append((image, instance, edit, fields))
    return found


def _object(fields: Any, key: str, where: str) -> dict[str, Any]:
    if not isinstance(fields, dict) or not isinstance(fields.get(key), dict):
        raise ValueError(f"{where}: expected an object with an object {key}")
    return fields[key]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_mask(path: Path) -> Mask:
    """Read a mask of any size. Raises ValueError if the file is damaged or has no white pixel, or OSError."""
    mask = np.asarray(open_picture(path, "mask").convert("L")) > 127
    if not mask.any():
        raise ValueError(f"{path}: expected white pixels on the object, found none")
    return mask


def bounds(mask: Mask) -> tuple[Pair, Pair]:
    """Return centre and size of a mask's bounding box, each (x, y), in units of the mask's sides."""
    centre, size = [], []
    for axis in (0, 1):  # axis to reduce: columns give x, rows y
        hit = np.flatnonzero(mask.any(axis=axis))
        length = mask.shape[1 - axis]
        centre.append(float(hit[0] + hit[-1] + 1) / (2 * length))
        size.append(float(hit[-1] + 1 - hit[0]) / length)
    return (centre[0], centre[1]), (size[0], size[1])


def motion_onto(mask: Mask, target: Mask) -> Motion:
    """Move an object's bounding box onto another: centre to centre, with one factor for both axes from the area."""
    (x, y), (width, height) = bounds(mask)
    (new_x, new_y), (new_width, new_height) = bounds(target)
    factor = math.sqrt(new_width * new_height / (width * height))
    return Motion((factor, factor), (new_x - x, new_y - y), (x, y))


def within(point: Pair, box: Box, size: int) -> Pair:
    """Map a point of a photograph into the model's image, where it fills `box`; both in units of their own sides."""
    left, top, right, bottom = box
    return (left + point[0] * (right - left)) / size, (top + point[1] * (bottom - top)) / size


def under(mask: Mask, label_map: Integer[np.ndarray, "S S"], box: Box) -> tuple[int, ...]:
    """Return the elements at least half covered by a photograph's mask; if there is none, the most covered one.

    Args:
        label_map: label map of the model's image.
        box: the photograph within it.

    Raises ValueError if the object is on no element.
    """
    left, top, right, bottom = box
    inside = Image.fromarray(mask).resize((right - left, bottom - top), Image.Resampling.NEAREST)
    placed = np.zeros(label_map.shape, bool)
    placed[top:bottom, left:right] = np.asarray(inside)
    if not (elements := elements_under(label_map, placed)):
        raise ValueError("the object is on no element")
    return elements


def edits_of(motion: Motion, elements: tuple[int, ...], box: Box, size: int) -> tuple[Edit, ...]:
    """Convert a motion of a photograph's object to the edits of a script.

    A shrinking object is resized before the move and a growing one after it, so that nothing is covered temporarily.
    """
    x, y = within(motion.anchor, box, size)
    new_x, new_y = within((motion.anchor[0] + motion.shift[0], motion.anchor[1] + motion.shift[1]), box, size)
    moves = (Move(elements, (new_x - x, new_y - y)),) if motion.shift != (0, 0) else ()
    if motion.scale == (1, 1):
        return moves
    grows = min(motion.scale) >= 1
    resize = Resize(elements, motion.scale, anchor=(new_x, new_y) if grows else (x, y))
    return (*moves, resize) if grows else (resize, *moves)
