"""Bodies of requests and responses, each documented for the API's page."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from elements_jax.editing.script import EditScript, Object, ObjectAt, ScriptFields

MOST_EDITS = 1000
"""Maximum number of edits in a script."""
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
    """A body; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid")


class Error(Body):
    """An error response."""

    error: str = Field(description="One sentence that describes the error.")


class Limits(Body):
    """Limits of the server."""

    upload_bytes: int = Field(default=32 * 2**20, description="Maximum size of an image file in bytes.")
    pixels: int = Field(default=50_000_000, description="Maximum pixels of an image, width times height.")
    variants: int = Field(default=MOST_VARIANTS, description="Maximum variants of a job.")
    queue: int = Field(default=32, description="Maximum number of waiting jobs.")


class Model(Body):
    """The model of the server, and its other capabilities."""

    name: str
    image_size: int = Field(description="Size of the model's images in pixels.")
    prompts: bool = Field(description="Whether it has a diffusion decoder, which prompts need.")
    steps: int = Field(description="Default number of sampling steps.")
    guidance: float = Field(description="Default guidance.")
    samplers: list[str]
    segmenter: str = Field(description="Name of the segmenter that divides the model's images into elements.")
    select_objects: bool = Field(description="Whether SAM is available to find objects from points.")
    notice: str | None = Field(description="Notice about the model for users.")
    limits: Limits


class Image(Body):
    """An uploaded photograph."""

    id: Id
    width: int = Field(description="Width of the upright photograph in pixels.")
    height: int = Field(description="Height of the upright photograph in pixels.")
    format: str = Field(description="Format of its file and of results: jpeg, png, webp, tiff, bmp, avif or heif.")
    shown: tuple[int, int] = Field(description="Width and height of its view and of its masks, in pixels.")
    notes: list[str] = Field(description="Notes on the file, such as what results cannot keep.")


class Pictures(Body):
    """A photograph, and the images named with it."""

    image: Id
    images: dict[Name, Id] = Field(
        default_factory=dict,
        max_length=MOST_NAMES,
        description="Ids of the named images: masks, other photographs, earlier results.",
    )


class ObjectPlace(Pictures):
    """The location of an object in a photograph."""

    object: Annotated[Object, AfterValidator(_required)]


class Mask(Body):
    """The pixels of an object."""

    mask: str = Field(description="A data: URL of a grey PNG with the size of the view, white on the object.")


class Script(Body):
    """An edit script."""

    script: ScriptFields


class JobRequest(Pictures):
    """A photograph and its edits, with consecutive seeds from the script's on."""

    script: Annotated[ScriptFields, AfterValidator(_limit_edits)]
    variants: int = Field(default=1, ge=1, le=MOST_VARIANTS)


Status = Literal["queued", "running", "done", "failed", "cancelled"]


class JobState(Body):
    """The state of a job."""

    id: Id
    status: Status
    position: int = Field(description="Number of jobs ahead of it; 0 if it is not queued.")
    variant: int = Field(description="Number of finished variants.")
    variants: int
    step: int = Field(description="Current step of the current window of the photograph, from 1; 0 before the first.")
    steps: int = Field(description="Number of steps per window.")
    results: list[str] = Field(description="Paths of the finished photographs.")
    error: str | None = Field(description="Reason of the failure.")
