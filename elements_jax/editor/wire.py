"""What goes over the wire: the bodies of requests and responses, each documented for the API's page."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from elements_jax.editing.script import EditScript, Object, ObjectAt, ScriptFields

MOST_EDITS = 1000
"""Of one script."""
MOST_VARIANTS = 8
MOST_NAMES = 1000

Id = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


def _limit_edits(script: EditScript) -> EditScript:
    if len(script.edits) > MOST_EDITS:
        raise ValueError(f"the editor takes at most {MOST_EDITS} edits, not {len(script.edits)}")
    return script


def _required(object: ObjectAt | None) -> ObjectAt:
    if object is None:
        raise ValueError("expected one of point, box and mask")
    return object


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
    image_size: int = Field(description="Side of the squares that it sees, in pixels.")
    steps: int = Field(description="Of the sampler, by default.")
    guidance: float = Field(description="By default.")
    samplers: list[str]
    segmenter: str = Field(description="Divides what it sees into elements.")
    select_objects: bool = Field(description="Whether there is a SAM, that finds objects from points.")
    notice: str | None = Field(description="What people should know of this model.")
    limits: Limits


class Image(Body):
    """A photograph that was uploaded."""

    id: Id
    width: int = Field(description="Of the photograph as it is seen, in pixels.")
    height: int = Field(description="Of the photograph as it is seen, in pixels.")
    format: str = Field(description="Of its file, which results have too: jpeg, png, webp, tiff, bmp, avif or heif.")
    shown: tuple[int, int] = Field(description="Width and height of its view, and of masks of it, in pixels.")
    notes: list[str] = Field(description="What to know of the file, such as what results cannot keep.")


class Pictures(Body):
    """A photograph, and the pictures that are named with it."""

    image: Id
    images: dict[Name, Id] = Field(
        default_factory=dict,
        max_length=MOST_NAMES,
        description="Ids of the pictures that are named: masks, other photographs, earlier results.",
    )


class ObjectPlace(Pictures):
    """An object of a photograph, by where it is seen."""

    object: Annotated[Object, AfterValidator(_required)]


class Mask(Body):
    """The pixels of an object."""

    mask: str = Field(description="A data: URL of a grey PNG as large as the photograph's view, white on the object.")


class Script(Body):
    """An edit script."""

    script: ScriptFields


class JobRequest(Pictures):
    """A photograph and its edits, with as many seeds, from the script's on."""

    script: Annotated[ScriptFields, AfterValidator(_limit_edits)]
    variants: int = Field(default=1, ge=1, le=MOST_VARIANTS)


Status = Literal["queued", "running", "done", "failed", "cancelled"]


class JobState(Body):
    """A job at one moment."""

    id: Id
    status: Status
    position: int = Field(description="Jobs that come before it; 0 for one that is not queued.")
    variant: int = Field(description="Variants that are done.")
    variants: int
    step: int = Field(description="The step that is computed of a window of the photograph, from 1; 0 before it.")
    steps: int = Field(description="Of every window.")
    results: list[str] = Field(description="Paths of the photographs that are done.")
    error: str | None = Field(description="Why it failed.")
