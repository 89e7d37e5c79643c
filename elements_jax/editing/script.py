"""The edit script: a list of edits and how to decode the result, as JSON.

    {
      "version": 1,
      "edits": [
        {"edit": "move", "elements": [17, 18], "by": [0.25, 0.0]},
        {"edit": "resize", "elements": [40, 41], "scale": 0.5},
        {"edit": "delete", "elements": [3]},
        {"edit": "duplicate", "elements": [5], "by": [0.0, 0.2]},
        {"edit": "compose", "image": "bird.png", "elements": [99], "by": [0.1, 0.1], "scale": 1.0},
        {"edit": "move", "object": {"point": [0.4, 0.6]}, "by": [0.1, 0.0]},
        {"edit": "continue", "image": "round-1.png"}
      ],
      "prompt": "a car on a beach",
      "seed": 0,
      "sampling": {"steps": 20}
    }

Elements are given by number, and lengths (x, y) as shares of the image's width and height, from the top left corner.
In place of elements, an edit of a photograph may locate an object (`ObjectAt`); lengths are then shares of the
photograph's width and height. To vary an object, delete it and describe the new one in the prompt (Section 4.3). Fields
with a default are optional; unknown fields are rejected. The dataclasses below are the schema: pydantic reads JSON by
their annotations, and `JSON_SCHEMA` is derived from them. Needs no JAX.
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

from PIL import Image
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from elements_jax.config import DiffusionConfig
from elements_jax.data.atomic import read_file
from elements_jax.editing.parsing import EditError, parse_object

LONGEST_PROMPT = 10_000
MOST_EDITS = 10_000


def _number(low: float, high: float) -> Any:
    """Return pydantic bounds, which keep absurd numbers out of the arithmetic."""
    return Field(strict=True, ge=low, le=high, allow_inf_nan=False)


def _expected(what: str) -> Any:
    """Annotate a field with the expectation that its error names."""
    return Field(description=what)


Coordinate = Annotated[float, _number(-4.0, 4.0)]
Vector = tuple[Coordinate, Coordinate]
VECTOR = _expected("[x, y], two numbers from -4 to 4 in units of the image's size")
Factor = Annotated[float, _number(0.01, 100.0)]
Scale = Annotated[Factor | tuple[Factor, Factor], _expected("a number from 0.01 to 100, or two, of x and of y")]
Elements = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0, lt=2**16)], ...],
    Field(default=(), min_length=1, max_length=2**16, exclude_if=lambda elements: not elements),
    _expected("a list of element numbers, at least one"),
]
"""Empty only if an edit selects an object, and then omitted from its JSON."""
Name = Annotated[str, Field(pattern=r"^[^\x00]+$", max_length=1000), _expected("the name of an image")]
Prompt = Annotated[str, Field(max_length=LONGEST_PROMPT), _expected(f"text of at most {LONGEST_PROMPT} characters")]
Weight = Annotated[float, _number(-100.0, 100.0)]
Fit = Literal["crop", "pad"]
"""How a photograph becomes a square image: the square at its centre, or all of it with margins."""


Detail = Literal["pixels", "decoder"]
"""How moved objects are drawn: `pixels` keeps the photograph's own, `decoder` generates them as in the paper."""
Share = Annotated[float, _number(0.0, 1.0)]


@dataclass(frozen=True)
class ObjectAt:
    """An object of a photograph, located by a point on it, a box around it, or a file with its mask.

    Coordinates are shares of the photograph's width and height, so that a script works with any model.
    """

    point: tuple[Share, Share] | None = None
    """(x, y) on the object. Needs SAM."""
    box: tuple[Share, Share, Share, Share] | None = None
    """Left, top, right, bottom."""
    mask: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """An image of the photograph's shape: white, or opaque, on the object."""
    __pydantic_config__ = ConfigDict(extra="forbid")


def _names_one_object(value: ObjectAt | None) -> ObjectAt | None:
    if value is not None:
        if sum(each is not None for each in (value.point, value.box, value.mask)) != 1:
            raise ValueError("expected one of point, box and mask")
        if value.box and not (value.box[0] < value.box[2] and value.box[1] < value.box[3]):
            raise ValueError("expected a box [left, top, right, bottom] with left < right and top < bottom")
    return value


Object = Annotated[
    ObjectAt | None,
    AfterValidator(_names_one_object),
    Field(exclude_if=lambda object: object is None),
    _expected(
        'one of {"point": [x, y]}, {"box": [left, top, right, bottom]} with numbers from 0 to 1, {"mask": "file"}'
    ),
]
_SELECTING = ConfigDict(
    extra="forbid", json_schema_extra={"oneOf": [{"required": ["elements"]}, {"required": ["object"]}]}
)


@dataclass(frozen=True)
class Move:
    """Shift elements; see `edits.move`."""

    elements: Elements
    by: Annotated[Vector, VECTOR]
    edit: Literal["move"] = "move"
    object: Object = dataclasses.field(default=None, kw_only=True)
    __pydantic_config__ = _SELECTING


@dataclass(frozen=True)
class Resize:
    """Scale elements about a point, by default the centre of their common bounding box; see `edits.resize`."""

    elements: Elements
    scale: Scale
    anchor: Annotated[Vector | None, VECTOR] = None
    edit: Literal["resize"] = "resize"
    object: Object = dataclasses.field(default=None, kw_only=True)
    __pydantic_config__ = _SELECTING


@dataclass(frozen=True)
class Delete:
    """Delete elements; see `edits.delete`."""

    elements: Elements
    edit: Literal["delete"] = "delete"
    object: Object = dataclasses.field(default=None, kw_only=True)
    __pydantic_config__ = _SELECTING


@dataclass(frozen=True)
class Duplicate:
    """Insert copies of elements, scaled about their own centre and shifted, in empty slots; see `edits.compose`."""

    elements: Elements
    by: Annotated[Vector, VECTOR]
    scale: Scale = 1.0
    edit: Literal["duplicate"] = "duplicate"
    object: Object = dataclasses.field(default=None, kw_only=True)
    __pydantic_config__ = _SELECTING


@dataclass(frozen=True)
class Compose:
    """Insert elements of another image, scaled about their own centre and shifted; see `edits.compose`."""

    image: Name
    elements: Elements
    by: Annotated[Vector, VECTOR] = (0.0, 0.0)
    scale: Scale = 1.0
    edit: Literal["compose"] = "compose"
    object: Object = dataclasses.field(default=None, kw_only=True)
    __pydantic_config__ = _SELECTING


@dataclass(frozen=True)
class Continue:
    """Continue from an earlier result of the edits so far: holes become elements of that image.

    All other elements keep their original content, so that nothing drifts between rounds.
    """

    image: Name
    edit: Literal["continue"] = "continue"
    __pydantic_config__ = ConfigDict(extra="forbid")


Edit = Move | Resize | Delete | Duplicate | Compose | Continue
KINDS: dict[str, type[Edit]] = {
    "move": Move,
    "resize": Resize,
    "delete": Delete,
    "duplicate": Duplicate,
    "compose": Compose,
    "continue": Continue,
}


def _selects_once(edit: Edit) -> Edit:
    if not isinstance(edit, Continue) and bool(edit.elements) == (edit.object is not None):
        raise ValueError("expected either elements or object")
    return edit


@dataclass(frozen=True)
class Sampling:
    """How the diffusion decoder samples; None selects the model's default."""

    sampler: Annotated[Literal["ddim", "euler", "dpm"] | None, _expected("ddim, euler or dpm")] = None
    """DDIM, the paper's and the default; Euler; or DPM-Solver++(2M), which needs fewer steps."""
    steps: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=1000)] | None, _expected("a whole number from 1 to 1000")
    ] = None
    """Number of steps; by default the model's."""
    guidance: Annotated[Weight | None, _expected("a number from -100 to 100")] = None
    """Weight of both text and elements (w in Section 4.1); by default the model's."""
    element_guidance: Annotated[Weight | None, _expected("a number from -100 to 100")] = None
    """Weight of the elements, if it differs from that of the text."""
    eta: Annotated[Annotated[float, _number(0.0, 1.0)] | None, _expected("a number from 0 to 1")] = None
    """Fresh noise in each step of DDIM: 0 for none, 1 for DDPM."""
    __pydantic_config__ = ConfigDict(extra="forbid")

    def settings(self, config: DiffusionConfig) -> dict[str, Any]:
        """Return the settings by option name, with the model's defaults for those that are None."""
        values: dict[str, Any] = {"sampler": "ddim", "steps": config.sample_steps, "guidance": config.guidance}
        return values | {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def checked(self) -> "Sampling":
        """Validate these settings like those of a script, and return them. Raises EditError naming the field."""
        return EditScript(sampling=self).checked().sampling

    def merged_with(self, by: "Sampling") -> "Sampling":
        """Return these settings, overridden by those that `by` sets."""
        return dataclasses.replace(
            self, **{name: value for name, value in dataclasses.asdict(by).items() if value is not None}
        )


DEFAULT_SAMPLING = Sampling()
"""The model's defaults."""


@dataclass(frozen=True)
class EditScript:
    """What to do to an image, and how to decode it afterwards."""

    edits: Annotated[
        tuple[Annotated[Edit, Field(discriminator="edit"), AfterValidator(_selects_once)], ...],
        Field(max_length=MOST_EDITS),
        _expected(f"a list of at most {MOST_EDITS} edits"),
    ] = ()
    prompt: Prompt = ""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32), _expected("a whole number from 0 to 2**32 - 1")] = 0
    tolerance: Annotated[float, _number(0.0, 1.0), _expected("a number from 0 to 1")] = 0.0
    """An unselected element is deleted when more than this share of its pixels is covered."""
    negative_prompt: Prompt = ""
    """Prompt that guidance steers away from, in place of the empty one."""
    fit: Annotated[Fit, _expected("crop or pad")] = "crop"
    preserve: Annotated[bool, Field(strict=True), _expected("true or false")] = False
    """Keep the pixels outside the edited region (`elements_jax.diffusion.preserve`)."""
    sampling: Annotated[Sampling, _expected("an object")] = Sampling()
    detail: Annotated[Detail | None, _expected("pixels or decoder")] = None
    """By default pixels for a photograph and the decoder for an encoded file."""
    version: Literal[1] = 1
    __pydantic_config__ = ConfigDict(extra="forbid", json_schema_extra={"required": ["version"]})

    @classmethod
    def load(cls, path: str | Path) -> "EditScript":
        """Read a script, or that in a result's PNG. Raises EditError with the file, the field and the reason."""
        content = read_file(path)
        try:
            return cls.from_file(content)
        except EditError as error:
            raise EditError(f"{path}: {error}") from error

    @classmethod
    def from_file(cls, content: bytes) -> "EditScript":
        """Read the script of a JSON file, or of a result's PNG (`EditSession.png`). Raises EditError."""
        try:
            if content.startswith(b"\x89PNG"):
                with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
                    picture.load()  # text chunks may follow the pixels
                    return cls.from_json(picture.info["script"])
            return cls.from_json(content.decode("utf-8-sig"))  # some editors write a byte order mark
        except UnicodeDecodeError as error:
            raise EditError(f"not UTF-8: {error}") from error
        except (KeyError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise EditError("a PNG without an edit script") from error

    @classmethod
    def from_json(cls, text: str) -> "EditScript":
        """Parse a script. Raises EditError."""
        return cls.from_fields(parse_object(text))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "EditScript":
        """Build a script from the fields of its JSON object. Raises EditError."""
        try:
            return _READER.validate_python(fields)
        except ValidationError as error:
            raise EditError(explain(error.errors(include_url=False, include_context=False)[0])) from error

    def checked(self) -> "EditScript":
        """Validate this script like one read from a file, and return it: for command line values. Raises EditError."""
        return self.from_json(self.to_json())

    def to_json(self) -> str:
        """Serialise the script, the inverse of `from_json`. Fields that are None are omitted."""
        fields = _READER.dump_python(self, mode="json", exclude_none=True)
        return json.dumps({"version": self.version, **fields}, indent=2)


def _require_version(value: Any) -> Any:
    if isinstance(value, Mapping) and (type(value.get("version")) is not int or value["version"] != EditScript.version):
        raise ValueError(f"version: expected {EditScript.version}")
    return value


ScriptFields = Annotated[EditScript, BeforeValidator(_require_version)]
"""The type by which pydantic reads a script, also in other schemas."""
_READER: TypeAdapter[EditScript] = TypeAdapter(ScriptFields)
JSON_SCHEMA = _READER.json_schema()


def explain(error: Mapping[str, Any]) -> str:
    """Turn a pydantic error in a script into a message with the field and the expectation."""
    where, kind, path = "", cast(Any, EditScript), list(error["loc"])
    while path:
        step = path.pop(0)
        if isinstance(step, int):  # index into the list of edits; the discriminator follows
            where += f"[{step}]"
            if path:
                kind = KINDS[path.pop(0)]
            continue
        field = next((field for field in dataclasses.fields(kind) if field.name == step), None)
        where += f".{step}" if where else str(step)
        if field is None:
            return f"{where}: unknown field; expected {', '.join(field.name for field in dataclasses.fields(kind))}"
        if error["type"].startswith("missing") and not path:
            return f"{where}: missing"
        if step == "sampling" and path:
            kind = Sampling
        elif not (step == "edits" and path):
            hint = get_type_hints(kind, include_extras=True)[step]
            found = (getattr(each, "description", None) for each in getattr(hint, "__metadata__", ()))
            expected = [each for each in found if each]
            return f"{where}: expected {expected[-1]}"
    if where:
        if error["type"] == "value_error":
            return f"{where}: {error['msg'].removeprefix('Value error, ')}"
        return f'{where}: expected an object whose field "edit" is one of {", ".join(KINDS)}'
    return error["msg"].removeprefix("Value error, ") if error["type"] == "value_error" else "expected an object"
