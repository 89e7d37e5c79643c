"""Many edit scripts in one JSON Lines file, for batch inference: a script in each line, and what it is to be run on.

    {"source_id": "cat.jpg", "name": "cat-left", "version": 1, "edits": [{"edit": "move", ...}], "seed": 3}

Next to the fields of an edit script (`elements_jax.editing.script`), `source_id` is that of the record that it
edits, and `name` that of its picture; without one, it is the number of the line. `instruction` may say the edit in
words, and `object` what is edited, for methods that read words (`elements compare`). Compose edits name their image
by its source_id, too. What all pictures of a job have in common, sampling and preservation, is not in the lines.

One file, since it is written and read in one go, has an order, and can be cut anywhere into shards.
"""

import re
import zlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elements_jax.editing.script import Compose, Continue, EditError, EditScript, parse_object

SHOWN = 20
"""Lines that an error names."""
LONGEST_NAME = 200
"""Bytes of a name; file systems take 255 with what is added while writing."""


@dataclass(frozen=True)
class ScriptLine:
    """One picture that is wanted."""

    name: str
    source_id: str
    script: EditScript
    instruction: str = ""
    """The edit in words."""
    object: str = ""
    """What is edited, in the words of the prompt."""

    @property
    def source_ids(self) -> list[str]:
        """All records that it needs, its own first."""
        composed = (edit.image for edit in self.script.edits if isinstance(edit, Compose))
        return list(dict.fromkeys([self.source_id, *composed]))


class ScriptLines:
    """The scripts of a file by their place in it. All are checked at first; kept is only where their lines start."""

    def __init__(self, path: Path, known: Container[str]):
        """Raises one ValueError naming the lines that are not scripts, or name a source_id that is not `known`."""
        self.path = path
        starts, numbers, checksum, start = list[int](), list[int](), 0, 0
        line_of: dict[str, int] = {}
        problems = list[str]()
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                checksum = zlib.crc32(text, checksum)
                if text.strip():
                    starts.append(start)
                    numbers.append(number)
                    try:
                        line = parse_line(text, number)
                        if missing := [each for each in line.source_ids if each not in known]:
                            raise EditError(f"there is no record of source_id {missing[0]!r}")
                        if (other := line_of.setdefault(line.name, number)) != number:
                            raise EditError(f"name: {line.name!r} is that of line {other} already")
                    except EditError as error:
                        problems.append(f"{path} line {number}: {error}")
                start += len(text)
        if problems:
            more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
            count = f"{len(problems)} of {len(starts)} scripts cannot be run:"
            raise ValueError("\n  ".join([count, *problems[:SHOWN], *more]))
        if not starts:
            raise ValueError(f"{path}: holds no script; expected one in each line")
        self._starts, self._numbers = np.array(starts, np.int64), np.array(numbers, np.int64)
        self.identity = f"{len(starts)} scripts, {checksum:08x}"
        """Tells other scripts from these."""

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, places: Sequence[int]) -> list[ScriptLine]:
        """The scripts at these places, from 0 on."""
        with self.path.open("rb") as file:

            def line(place: int) -> ScriptLine:
                file.seek(self._starts[place])
                return parse_line(file.readline(), int(self._numbers[place]))

            return [line(place) for place in places]

    def where(self, place: int) -> str:
        """Names a script for people."""
        return f"{self.path} line {self._numbers[place]}"


def parse_line(text: bytes, number: int) -> ScriptLine:
    """The script of a line, which gives it its number as a name if it has none. Raises EditError naming the field."""
    try:
        fields = parse_object(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise EditError(f"not UTF-8: {error}") from error
    source_id, name = fields.pop("source_id", None), fields.pop("name", f"{number:07d}")
    words = {name: fields.pop(name, "") for name in ("instruction", "object")}
    if not isinstance(source_id, str):
        raise EditError("source_id: expected that of a record")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name) or len(name.encode()) > LONGEST_NAME:
        raise EditError("name: expected letters, digits, '_', '-' and '.', at most 200, the first a letter or digit")
    for field, value in words.items():
        if not isinstance(value, str):
            raise EditError(f"{field}: expected text")
    script = EditScript.from_fields(fields)
    for field in ("sampling", "preserve", "fit", "detail"):
        if getattr(script, field) != getattr(EditScript(), field):
            raise EditError(f"{field}: belongs to the whole job: give it to `elements batch`")
    for i, edit in enumerate(script.edits):
        if isinstance(edit, Continue):
            raise EditError(f"edits[{i}]: there is no earlier picture to continue from")
        if edit.object is not None:
            raise EditError(f"edits[{i}].object: records are edited by elements")
    return ScriptLine(name, source_id, script, **words)
