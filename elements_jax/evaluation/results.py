"""The results folder: the same edits by several methods, for metrics, grids of pictures and the user study.

    RESULTS/cases.jsonl         a case in each line: {"name": "0003-move", "kind": "move", "instruction": "move the red
                                circle to the right", "source_id": "...", "prompt": "...", "script": {an edit script}}
    RESULTS/input/NAME.png      the picture before the edit
    RESULTS/drawing/NAME.png    the edit drawn on it, in red and green dots
    RESULTS/truth/NAME.png      the true result, where it is known
    RESULTS/region/NAME.png     a 1-bit mask, white where the edit may change the picture
    RESULTS/needs/METHOD/...    what methods of others need of a case (`elements_jax/evaluation/methods/external.py`)
    RESULTS/METHOD/NAME.png     what a method made of it: `ours`, `pixels`, `sdedit-0.5`, ...

Methods of other projects join by their pictures alone. Needs no JAX.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from elements_jax.data.atomic import new_file
from elements_jax.editing.script import EditError, EditScript, parse_object

CASES = "cases.jsonl"
PARTS = ("input", "drawing", "truth", "region")
"""Folders that belong to the cases; every other one with their pictures is a method's."""


@dataclass(frozen=True)
class Case:
    """One edit of one picture. The last four fields may be left out of a line: methods of others have no script."""

    name: str
    kind: str
    """move, shrink, enlarge, resize, delete, compose or variation; what a table groups by."""
    instruction: str
    """The edit in words, for people and for methods that take words."""
    source_id: str = ""
    """Of the record that is edited."""
    prompt: str = ""
    """What the edited picture shows."""
    script: EditScript | None = None
    object: str = ""
    """What is edited, in the words of the prompt, for methods that look for it there."""

    def to_json(self) -> str:
        """The case's line."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.script is not None:
            fields["script"] = json.loads(self.script.to_json())
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Case":
        """The inverse of `to_json`. Raises EditError naming the field."""
        fields = parse_object(text)
        script = fields.pop("script", None)
        known = [field.name for field in dataclasses.fields(cls) if field.name != "script"]
        if odd := sorted(fields.keys() - set(known)):
            raise EditError(f"{odd[0]}: unknown field; expected {', '.join(known)}, script")
        for name in known:
            value = fields.get(name, "" if name in ("source_id", "prompt", "object") else None)
            if not isinstance(value, str):
                raise EditError(f"{name}: expected text")
        if not fields["name"] or Path(fields["name"]).name != fields["name"]:
            raise EditError(f"name: expected that of a file, got {fields['name']!r}")
        if script is not None and not isinstance(script, dict):
            raise EditError("script: expected an edit script")
        return cls(**fields, script=None if script is None else EditScript.from_fields(script))


@dataclass(frozen=True, eq=False)
class Task:
    """A case that methods are to be run on, and, where they are known, its truth and its region."""

    case: Case
    truth: UInt8[np.ndarray, "H W 3"] | None = None
    region: Bool[np.ndarray, "H W"] | None = None


def read_cases(folder: Path) -> list[Case]:
    """The cases of a results folder. Raises ValueError naming the file, the line and what is wrong, or OSError."""
    cases, names = list[Case](), set[str]()
    for number, line in enumerate((folder / CASES).read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            case = Case.from_json(line)
            if case.name in names:
                raise EditError(f"name: {case.name!r} is that of an earlier case")
        except EditError as error:
            raise ValueError(f"{folder / CASES} line {number}: {error}") from error
        names.add(case.name)
        cases.append(case)
    return cases


def write_cases(folder: Path, cases: Iterable[Case]) -> None:
    """Write the cases, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(folder / CASES) as file:
        file.writelines(case.to_json().encode() + b"\n" for case in cases)


def methods(folder: Path) -> list[str]:
    """The methods that have a picture of some case, in alphabetical order."""
    names = {f"{case.name}.png" for case in read_cases(folder)}
    found = (path for path in folder.iterdir() if path.is_dir() and path.name not in PARTS)
    return sorted(path.name for path in found if any(picture.name in names for picture in path.glob("*.png")))


def not_run(folder: Path) -> list[str]:
    """The methods of other authors whose inputs are in `needs` and that have made no picture, by name."""
    needs = folder / "needs"
    there = sorted(path.name for path in needs.iterdir()) if needs.is_dir() else []
    return [name for name in there if name not in methods(folder)]


def path_of(folder: Path, method: str, case: Case) -> Path:
    """Where the picture of a method, or of one of `PARTS`, is stored, or will be."""
    return folder / method / f"{case.name}.png"


def picture(folder: Path, method: str, case: Case) -> UInt8[np.ndarray, "H W 3"]:
    """The picture that a method made of a case; `method` may be one of `PARTS` but region.

    Raises ValueError naming a file that is not a picture, or OSError.
    """
    return np.asarray(open_picture(path_of(folder, method, case)).convert("RGB"))


def region(folder: Path, case: Case) -> Bool[np.ndarray, "H W"]:
    """Where the edit of a case may change the picture. Raises as `picture`."""
    return np.asarray(open_picture(path_of(folder, "region", case)).convert("L")) > 127


def save(folder: Path, method: str, case: Case, pixels: Shaped[np.ndarray, "H W *channels"]) -> None:
    """Write a picture (uint8) or a mask (bool), whole or not at all."""
    path = path_of(folder, method, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        Image.fromarray(pixels).save(file, "PNG")


def open_picture(path: Path, what: str = "picture") -> Image.Image:
    """The picture of a file, read whole. Raises ValueError naming a file that is none, or damaged, or OSError."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damage
        raise ValueError(f"{path}: no {what}, or damaged: {error}") from error
