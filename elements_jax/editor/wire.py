"""What goes over the wire: the bodies of requests and responses, each documented for the API's page."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from elements_jax.editing.script import EditScript, ScriptFields

MOST_EDITS = 1000
"""Of one script. Every canvas is made from the first edit on."""
MOST_VARIANTS = 8
MOST_NAMES = 64
MOST_POINTS = 64

Id = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Point = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]
Points = Annotated[list[Point], Field(max_length=MOST_POINTS)]


def _limit_edits(script: EditScript) -> EditScript:
    if len(script.edits) > MOST_EDITS:
        raise ValueError(f"the editor takes at most {MOST_EDITS} edits, not {len(script.edits)}")
    return script


class Body(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Error(Body):
    """Every response that reports an error."""

    error: str = Field(description="One sentence on what was wrong.")


class Limits(Body):
    """What the server takes."""

    upload_bytes: int = Field(default=32 * 2**20, description="Of a picture's file.")
    pixels: int = Field(default=50_000_000, description="Of a picture, width times height.")
    variants: int = Field(default=MOST_VARIANTS, description="Of one job.")
    queue: int = Field(default=32, description="Jobs that wait.")


class Model(Body):
    """The model that the server runs, and what else it has."""

    name: str
    image_size: int = Field(description="Side of the square picture in pixels.")
    num_elements: int = Field(description="The most elements of a picture.")
    steps: int = Field(description="Of the sampler, by default.")
    guidance: float = Field(description="By default.")
    samplers: list[str]
    segmenter: str = Field(description="Divides photographs into elements.")
    select_objects: bool = Field(description="Whether there is a SAM, that finds objects from points.")
    notice: str | None = Field(description="What people should know of this model.")
    limits: Limits


class Image(Body):
    """A photograph that was uploaded."""

    id: Id
    width: int = Field(description="Of the photograph, in pixels.")
    height: int = Field(description="Of the photograph, in pixels.")
    box: tuple[int, int, int, int] = Field(
        description="Left, top, right and bottom, in pixels, of what is photograph in the square picture."
    )
    said: str = Field(description="One sentence on what was cropped or padded.")


class Edits(Body):
    """A picture and what is done to it."""

    image: Id
    images: dict[Name, Id] = Field(
        default_factory=dict,
        max_length=MOST_NAMES,
        description="Ids of the pictures that the script names in compose and continue.",
    )
    script: Annotated[ScriptFields, AfterValidator(_limit_edits)]


class Element(Body):
    """A live element: its number, its centroid and its size, in units of the picture's side."""

    number: int
    x: float
    y: float
    width: float
    height: float


class Canvas(Body):
    """The elements after the edits."""

    size: int = Field(description="Side of the picture in pixels.")
    elements: list[Element]
    label_map: str = Field(
        description="The element of each pixel, row by row: base64 of little-endian uint16; num_elements where none is."
    )
    preview: str = Field(description="A data: URL of a PNG, the edits by copied pixels.")
    free: int = Field(description="Elements that can still be added.")


class ObjectPoints(Edits):
    """A picture, what is done to it, and points (x, y) on an object and beside it, in units of the picture's side."""

    positive: Points = Field(min_length=1)
    negative: Points = []


class Selection(Body):
    """Numbers of elements."""

    elements: list[int]


class Script(Body):
    """An edit script."""

    script: ScriptFields


class JobRequest(Edits):
    """Edits to decode, with as many seeds, from the script's on."""

    variants: int = Field(default=1, ge=1, le=MOST_VARIANTS)
    result: Literal["square", "photograph"] = Field(
        default="square",
        description="The model's square picture as a PNG, or the uploaded photograph in its own size and format, as "
        "`elements edit` writes it.",
    )


Status = Literal["queued", "running", "done", "failed", "cancelled"]


class JobState(Body):
    """A job at one moment."""

    id: Id
    status: Status
    position: int = Field(description="Jobs that come before it; 0 for one that is not queued.")
    variant: int = Field(description="Variants that are done.")
    variants: int
    step: int = Field(description="The step that is computed of the variant that is decoded, from 1; 0 before it.")
    steps: int = Field(description="Of every variant.")
    results: list[str] = Field(description="Paths of the pictures that are done.")
    error: str | None = Field(description="Why it failed.")
