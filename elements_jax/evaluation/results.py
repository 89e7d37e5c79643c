"""The results folder: the same edits by several methods, for metrics, comparison grids and the user study.

    RESULTS/cases.jsonl         one case per line: {"name": "0003-move", "kind": "move", "instruction": "move the red
                                circle to the right", "source_id": "...", "prompt": "...", "script": {an edit script}}
    RESULTS/input/NAME.png      the image before the edit
    RESULTS/drawing/NAME.png    the edit drawn on it, in red and green dots
    RESULTS/truth/NAME.png      the true result, if known
    RESULTS/region/NAME.png     a 1-bit mask, white where the edit may change the image
    RESULTS/needs/METHOD/...    inputs of external methods (`elements_jax/evaluation/methods/external.py`)
    RESULTS/METHOD/NAME.png     the result of a method: `ours`, `pixels`, `sdedit-0.5`, ...

External methods only need to add their images. Needs no JAX.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from elements_jax.data.atomic import new_file, read_file
from elements_jax.editing.script import EditError, EditScript, parse_object

CASES = "cases.jsonl"
PARTS = ("input", "drawing", "truth", "region")
"""Folders that belong to the cases; every other folder with their images belongs to a method."""


@dataclass(frozen=True)
class Case:
    """One edit of one image. The last four fields are optional: external cases may have no script."""

    name: str
    kind: str
    """move, shrink, enlarge, resize, delete, compose or variation; tables are grouped by it."""
    instruction: str
    """The edit in words, for people and for methods that take words."""
    source_id: str = ""
    """Id of the edited record."""
    prompt: str = ""
    """Prompt that describes the edited image."""
    script: EditScript | None = None
    object: str = ""
    """The edited object, in the words of the prompt, for methods that look for it there."""

    def to_json(self) -> str:
        """Return the case's line."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.script is not None:
            fields["script"] = json.loads(self.script.to_json())
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Case":
        """Parse a case, the inverse of `to_json`. Raises EditError that names the field."""
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
            raise EditError(f"name: expected a file name, got {fields['name']!r}")
        if script is not None and not isinstance(script, dict):
            raise EditError("script: expected an edit script")
        return cls(**fields, script=None if script is None else EditScript.from_fields(script))


@dataclass(frozen=True, eq=False)
class Task:
    """A case to run methods on and, if known, its truth and its region."""

    case: Case
    truth: UInt8[np.ndarray, "H W 3"] | None = None
    region: Bool[np.ndarray, "H W"] | None = None


def read_cases(folder: Path) -> list[Case]:
    """Read the cases of a results folder. Raises ValueError with the file, the line and the problem, or OSError."""
    cases, names = list[Case](), set[str]()
    try:
        lines = read_file(folder / CASES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder / CASES}: not UTF-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            case = Case.from_json(line)
            if case.name in names:
                raise EditError(f"name: {case.name!r} is already used by an earlier case")
        except EditError as error:
            raise ValueError(f"{folder / CASES} line {number}: {error}") from error
        names.add(case.name)
        cases.append(case)
    return cases


def write_cases(folder: Path, cases: Iterable[Case]) -> None:
    """Write the cases atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(folder / CASES) as file:
        file.writelines(case.to_json().encode() + b"\n" for case in cases)


def methods(folder: Path) -> list[str]:
    """Return the methods that have an image of any case, in alphabetical order."""
    names = {f"{case.name}.png" for case in read_cases(folder)}
    found = (path for path in folder.iterdir() if path.is_dir() and path.name not in PARTS)
    return sorted(path.name for path in found if any(picture.name in names for picture in path.glob("*.png")))


def not_run(folder: Path) -> list[str]:
    """Return the external methods that have inputs in `needs` but no images, by name."""
    needs = folder / "needs"
    there = sorted(path.name for path in needs.iterdir()) if needs.is_dir() else []
    return [name for name in there if name not in methods(folder)]


def path_of(folder: Path, method: str, case: Case) -> Path:
    """Return the path of the image of a method, or of one of `PARTS`."""
    return folder / method / f"{case.name}.png"


def picture(folder: Path, method: str, case: Case) -> UInt8[np.ndarray, "H W 3"]:
    """Read a method's image of a case; `method` may also be one of `PARTS` except region.

    Raises ValueError that names a file that is not an image, or OSError.
    """
    return np.asarray(open_picture(path_of(folder, method, case)).convert("RGB"))


def region(folder: Path, case: Case) -> Bool[np.ndarray, "H W"]:
    """Read the mask where a case's edit may change the image. Raises the errors of `picture`."""
    return np.asarray(open_picture(path_of(folder, "region", case)).convert("L")) > 127


def save(folder: Path, method: str, case: Case, pixels: Shaped[np.ndarray, "H W *channels"]) -> None:
    """Write an image (uint8) or a mask (bool) atomically."""
    path = path_of(folder, method, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        Image.fromarray(pixels).save(file, "PNG")


def open_picture(path: Path, what: str = "image") -> Image.Image:
    """Read an image completely. Raises ValueError that names a file that is damaged or not an image, or OSError."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors for damaged files
        raise ValueError(f"{path}: not a readable {what}: {error}") from error
