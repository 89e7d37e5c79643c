"""The edit script: a list of edits and how to decode the result, as JSON.

    {
      "version": 1,
      "edits": [
        {"edit": "move", "elements": [17, 18], "by": [0.25, 0.0]},
        {"edit": "resize", "elements": [40, 41], "scale": 0.5},
        {"edit": "delete", "elements": [3]},
        {"edit": "compose", "image": "bird.png", "elements": [99], "by": [0.1, 0.1], "scale": 1.0}
      ],
      "prompt": "a car on a beach",
      "seed": 0
    }

Elements go by their number, lengths by the image's width and height, (x, y) from the top left corner. A variation is
a delete and a prompt (Section 4.3). Fields with a default may be left out; unknown ones are refused.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from elements_jax import edits
from elements_jax.edits import Canvas, Transform, selection

VERSION = 1


class EditError(ValueError):
    """An edit script that cannot be read or applied; the message names the field and what was expected."""


@dataclass(frozen=True)
class Move:
    """Shift elements; see `edits.move`."""

    elements: tuple[int, ...]
    by: tuple[float, float]


@dataclass(frozen=True)
class Resize:
    """Scale elements about a point, by default the centre of their common bounding box; see `edits.resize`."""

    elements: tuple[int, ...]
    scale: float
    anchor: tuple[float, float] | None = None


@dataclass(frozen=True)
class Delete:
    """Delete elements; see `edits.delete`."""

    elements: tuple[int, ...]


@dataclass(frozen=True)
class Compose:
    """Insert elements of another image, scaled about their own centre and shifted; see `edits.compose`."""

    image: str
    elements: tuple[int, ...]
    by: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0


Edit = Move | Resize | Delete | Compose
KINDS: dict[str, type[Edit]] = {"move": Move, "resize": Resize, "delete": Delete, "compose": Compose}


@dataclass(frozen=True)
class EditScript:
    """What to do to an image, and how to decode it afterwards."""

    edits: tuple[Edit, ...] = ()
    prompt: str = ""
    seed: int = 0
    tolerance: float = 0.0  # an unselected element dies when more than this share of its pixels is covered

    @classmethod
    def load(cls, path: Path) -> "EditScript":
        """Read a script. Raises EditError naming the file, the field and what was expected."""
        try:
            return cls.from_json(path.read_text())
        except (EditError, UnicodeDecodeError) as error:
            raise EditError(f"{path}: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "EditScript":
        """Parse a script. Raises EditError."""
        return cls.from_fields(parse_object(text))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "EditScript":
        """A script from the fields of its JSON object. Raises EditError."""
        if fields.get("version") != VERSION:
            raise EditError(f"version: expected {VERSION}")
        listed = fields.get("edits", [])
        if not isinstance(listed, list):
            raise EditError("edits: expected a list")
        parsed = tuple(_parse_edit(item, f"edits[{i}]") for i, item in enumerate(listed))
        others = {name: value for name, value in fields.items() if name not in ("version", "edits")}
        return _build(cls, {"edits": parsed, **others}, where="")

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        names = {kind: name for name, kind in KINDS.items()}
        value = dataclasses.asdict(self)
        value["edits"] = [
            {"edit": names[type(edit)], **{k: v for k, v in dataclasses.asdict(edit).items() if v is not None}}
            for edit in self.edits
        ]
        return json.dumps({"version": VERSION, **value}, indent=2)


def parse_object(text: str) -> dict[str, Any]:
    """The fields of a script's JSON. Raises EditError for what is no JSON, or no object."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise EditError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise EditError("expected an object with the field edits")
    return value


def apply(script: EditScript, canvas: Canvas, open_image: Callable[[str], Canvas]) -> Canvas:
    """Run the edits of a script in their order.

    Args:
        open_image: gives the canvas of the image that a compose edit names.

    Raises EditError naming the edit, when it names an element that is not there or finds no room.
    """
    for i, edit in enumerate(script.edits):
        where = f"edits[{i}] ({_name(edit)})"
        if isinstance(edit, Compose):
            canvas = _compose(canvas, open_image(edit.image), edit, script.tolerance, where)
            continue
        selected = _select(canvas, edit.elements, where)
        if isinstance(edit, Delete):
            canvas = edits.delete(canvas, selected)
        else:
            canvas = edits.transform(canvas, selected, transform_of(edit, canvas), script.tolerance)
    return canvas


def transform_of(edit: Move | Resize | Compose, canvas: Canvas) -> Transform:
    """The geometry of an edit; `canvas` is that of the image whose elements are moved."""
    shift = (0.0, 0.0) if isinstance(edit, Resize) else edit.by
    scale = 1.0 if isinstance(edit, Move) else edit.scale
    anchor = edit.anchor if isinstance(edit, Resize) else None
    if anchor is None:
        anchor = tuple(np.asarray(edits.centre(canvas, selection(canvas.num_elements, edit.elements))).tolist())
    return Transform(jnp.float32(scale), jnp.asarray(shift, jnp.float32), jnp.asarray(anchor, jnp.float32))


def _compose(canvas: Canvas, other: Canvas, edit: Compose, tolerance: float, where: str) -> Canvas:
    selected = _select(other, edit.elements, where)
    composed, slots = edits.compose(canvas, other, selected, transform_of(edit, other), tolerance)
    placed, wanted = int((slots < canvas.num_elements).sum()), len(set(edit.elements))
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


def _name(edit: Edit) -> str:
    return type(edit).__name__.lower()


def _parse_edit(item: Any, where: str) -> Edit:
    if not isinstance(item, dict) or item.get("edit") not in KINDS:
        raise EditError(f'{where}: expected an object whose field "edit" is one of {", ".join(KINDS)}')
    return _build(KINDS[item["edit"]], {name: value for name, value in item.items() if name != "edit"}, f"{where}.")


def _build(kind: Any, values: dict[str, Any], where: str) -> Any:
    """An instance of the dataclass from JSON values, each checked by the name of its field."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - fields.keys()):
        raise EditError(f"{where}{unknown[0]}: unknown field; expected {', '.join(fields)}")
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if missing := sorted(required - values.keys()):
        raise EditError(f"{where}{missing[0]}: missing")
    return kind(**{name: _check(name, value, f"{where}{name}") for name, value in values.items()})


def _check(name: str, value: Any, where: str) -> Any:
    """A field's value in its own type. Bounds keep absurd numbers from the arithmetic."""
    match name:
        case "edits":
            return value
        case "elements":
            if not isinstance(value, list) or not value or not all(type(n) is int and n >= 0 for n in value):
                raise EditError(f"{where}: expected a list of element numbers, at least one")
            return tuple(value)
        case "by" | "anchor":
            if not isinstance(value, list) or len(value) != 2 or not all(_is_number(v, -4.0, 4.0) for v in value):
                raise EditError(f"{where}: expected [x, y], two numbers from -4 to 4 in units of the image's size")
            return tuple(float(v) for v in value)
        case "scale":
            if not _is_number(value, 0.01, 100.0):
                raise EditError(f"{where}: expected a number from 0.01 to 100")
            return float(value)
        case "tolerance":
            if not _is_number(value, 0.0, 1.0):
                raise EditError(f"{where}: expected a number from 0 to 1")
            return float(value)
        case "seed":
            if type(value) is not int or not 0 <= value < 2**32:
                raise EditError(f"{where}: expected a whole number from 0 to 2**32 - 1")
            return value
        case _:
            if not isinstance(value, str):
                raise EditError(f"{where}: expected text")
            return value


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high
