"""Many edit scripts in one JSON Lines file, for batch inference: each line has a script and the record to edit.

    {"source_id": "cat.jpg", "name": "cat-left", "version": 1, "edits": [{"edit": "move", ...}], "seed": 3}

In addition to the fields of an edit script (`elements_jax.editing.script`), `source_id` names the record to edit, and
`name` the output image; by default it is the line number. `instruction` may describe the edit in words, and `object`
the edited object, for methods that read words (`elements compare`). Compose edits also name their image by source_id.
Settings common to all images of a job, sampling and preservation, are not in the lines.

There is one file, because it is written and read in one go, has an order, and can be split into shards anywhere.
"""

import math
import re
import zlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elements_jax.data.atomic import require_regular
from elements_jax.editing.script import Compose, Continue, EditError, EditScript, parse_object

SHOWN = 20
"""Maximum number of lines listed in an error."""
LONGEST_NAME = 200
"""Maximum bytes of a name; file systems allow 255, including the suffix of unfinished files."""


@dataclass(frozen=True)
class ScriptLine:
    """A script and the image to make with it."""

    name: str
    source_id: str
    script: EditScript
    instruction: str = ""
    """The edit in words."""
    object: str = ""
    """The edited object, in the words of the prompt."""

    @property
    def source_ids(self) -> list[str]:
        """Return the ids of all needed records, the edited one first."""
        composed = (edit.image for edit in self.script.edits if isinstance(edit, Compose))
        return list(dict.fromkeys([self.source_id, *composed]))


class ScriptLines:
    """The scripts of a file by position. All are checked on construction; only the offsets of the lines are kept."""

    def __init__(self, path: Path, known: Container[str]):
        """Check the file. Raises one ValueError that lists invalid lines, and those whose source_id is not `known`; and
        the errors of `require_regular`."""
        require_regular(path, math.inf)
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
                            raise EditError(f"no record has source_id {missing[0]!r}")
                        if (other := line_of.setdefault(line.name, number)) != number:
                            raise EditError(f"name: {line.name!r} is already used by line {other}")
                    except EditError as error:
                        problems.append(f"{path} line {number}: {error}")
                start += len(text)
        if problems:
            more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
            count = f"{len(problems)} of {len(starts)} scripts cannot be run:"
            raise ValueError("\n  ".join([count, *problems[:SHOWN], *more]))
        if not starts:
            raise ValueError(f"{path}: contains no script; expected one per line")
        self._starts, self._numbers = np.array(starts, np.int64), np.array(numbers, np.int64)
        self.identity = f"{len(starts)} scripts, {checksum:08x}"
        """Identifies these scripts."""

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, places: Sequence[int]) -> list[ScriptLine]:
        """Read the scripts at these positions, counted from 0."""
        with self.path.open("rb") as file:

            def line(place: int) -> ScriptLine:
                file.seek(self._starts[place])
                return parse_line(file.readline(), int(self._numbers[place]))

            return [line(place) for place in places]

    def where(self, place: int) -> str:
        """Return a readable name of a script."""
        return f"{self.path} line {self._numbers[place]}"


def parse_line(text: bytes, number: int) -> ScriptLine:
    """Parse the script of a line; its default name is the line number. Raises EditError that names the field."""
    try:
        fields = parse_object(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise EditError(f"not UTF-8: {error}") from error
    source_id, name = fields.pop("source_id", None), fields.pop("name", f"{number:07d}")
    words = {name: fields.pop(name, "") for name in ("instruction", "object")}
    if not isinstance(source_id, str):
        raise EditError("source_id: expected the id of a record")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name) or len(name.encode()) > LONGEST_NAME:
        raise EditError("name: expected letters, digits, '_', '-' and '.', at most 200, the first a letter or digit")
    for field, value in words.items():
        if not isinstance(value, str):
            raise EditError(f"{field}: expected text")
    script = EditScript.from_fields(fields)
    for field in ("sampling", "preserve", "fit", "detail"):
        if getattr(script, field) != getattr(EditScript(), field):
            raise EditError(f"{field}: applies to the complete job: pass it to `elements batch`")
    for i, edit in enumerate(script.edits):
        if isinstance(edit, Continue):
            raise EditError(f"edits[{i}]: there is no earlier result to continue from")
        if edit.object is not None:
            raise EditError(f"edits[{i}].object: records are edited by elements")
    return ScriptLine(name, source_id, script, **words)
