"""The API's endpoints. Each reports errors with a status and one sentence."""

import base64
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import fail_after
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.sse import EventSourceResponse
from starlette.requests import ClientDisconnect

from elements_jax.editing.script import EditError, EditScript
from elements_jax.editor import wire
from elements_jax.editor.images import FORMATS, TooManyPixels, decoded, open_upload, view_of
from elements_jax.editor.jobs import Job
from elements_jax.editor.state import Editor

UPLOAD_SECONDS = 60
FILE = {"schema": {"type": "string", "format": "binary"}}
ERRORS = {
    400: "A wrong host name, or an unreadable body.",
    403: "From a page of another origin.",
    404: "An id that is unknown or was forgotten.",
    408: "The file did not arrive in time.",
    413: "Too many bytes, or pixels.",
    415: "Not an editable photograph, or a damaged one.",
    422: "An invalid field.",
    429: "The queue is full.",
}


async def _editor(request: Request) -> Editor:
    return request.app.state.editor


SharedEditor = Annotated[Editor, Depends(_editor)]


async def _job(id: str, editor: SharedEditor) -> Job:
    try:
        return editor.jobs[id]
    except KeyError:
        raise HTTPException(404, f"job {id!r} is unknown or was forgotten") from None


FoundJob = Annotated[Job, Depends(_job)]


async def _heard(job: FoundJob, editor: SharedEditor) -> AsyncIterator[Job]:
    """Yield the job, with a registered listener."""
    with editor.jobs.listening(job):
        yield job


def refuses(*statuses: int, events: bool = False) -> dict[int | str, dict[str, Any]]:
    """Declare the errors of an endpoint for OpenAPI; for events, FastAPI would declare them as event streams."""
    reference = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    body = {"content": reference} if events else {"model": wire.Error}
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": ERRORS[status], **body} for status in (400, *statuses)
    }
    if 429 in errors:
        seconds = {"description": "Seconds to wait.", "schema": {"type": "integer"}, "required": True}
        errors[429]["headers"] = {"Retry-After": seconds}
    return errors


def gives(*types: str) -> dict[str, Any]:
    """Declare an endpoint that responds with an image of one of these types."""
    found = {200: {"content": dict.fromkeys(types, FILE), "description": "The image."}}
    return {"response_class": Response, "responses": refuses(404, 422) | found}


api = APIRouter(prefix="/api")


@api.get("/model", responses=refuses())
async def get_model(editor: SharedEditor) -> wire.Model:
    """The model, and the limits of the server."""
    return editor.model


@api.post(
    "/images",
    status_code=201,
    responses=refuses(403, 408, 413, 415),
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": FILE}}},
)
async def post_image(request: Request, editor: SharedEditor) -> wire.Image:
    """Upload a photograph or a mask: the bytes of its file. The same bytes always get the same id."""
    async with editor.uploads:
        encoded = await _file(request)
        try:
            upload = await editor.in_thread(open_upload, encoded, editor.model.limits.pixels)
        except TooManyPixels as error:
            raise HTTPException(413, str(error)) from error
        except ValueError as error:
            raise HTTPException(415, str(error)) from error
    editor.images.keep(upload)
    return wire.Image(
        id=upload.id,
        width=upload.width,
        height=upload.height,
        format=upload.format.lower(),
        shown=upload.view.size,
        notes=list(upload.notes),
    )


@api.get("/images/{id}/view", **gives("image/jpeg", "image/png"))
async def get_view(id: str, editor: SharedEditor) -> Response:
    """The photograph for display: upright, in sRGB, at most 2048 px per side."""
    view = editor.upload(id).view
    return Response(view.encoded, media_type=view.type)


@api.get("/images/{id}/pieces", **gives("image/png"))
async def get_pieces(id: str, editor: SharedEditor) -> Response:
    """Pieces of the photograph to select: a PNG whose red and green are the bytes of each pixel's piece number."""
    return Response(await editor.in_thread(editor.divided, editor.upload(id)), media_type="image/png")


@api.post(
    "/images/{id}/preview",
    response_class=Response,
    responses=refuses(403, 404, 408, 413, 415, 422)
    | {200: {"content": {"image/png": FILE}, "description": "The PNG."}},
    openapi_extra={"requestBody": {"required": True, "content": {"image/png": FILE}}},
)
async def post_preview(id: str, request: Request, editor: SharedEditor) -> Response:
    """Fill gaps in a reduced photograph: the bytes of a mask's file, opaque or white where something left its place.

    The PNG is transparent wherever the photograph stays. Runs fill gaps more finely, at full size.
    """
    upload = editor.upload(id)
    async with editor.uploads:
        gaps = await _file(request)
    try:
        return Response(await editor.in_thread(editor.preview, upload, gaps), media_type="image/png")
    except EditError:
        raise
    except TooManyPixels as error:
        raise HTTPException(413, str(error)) from error
    except ValueError as error:
        raise HTTPException(415, str(error)) from error


@api.post("/objects", responses=refuses(403, 404, 413, 415, 422))
async def post_object(request: wire.ObjectPlace, editor: SharedEditor) -> wire.Mask:
    """Find an object: the mask that an edit of a script with the same `object` selects."""
    try:
        png = await editor.in_thread(editor.select(request))
    except EditError:
        raise
    except ValueError as error:
        raise HTTPException(415, str(error)) from error
    return wire.Mask(mask="data:image/png;base64," + base64.b64encode(png).decode())


@api.post(
    "/scripts",
    response_model_exclude_none=True,
    responses=refuses(403, 408, 413, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/EditScript"}},
                "image/png": FILE,
            },
        }
    },
)
async def post_script(request: Request, editor: SharedEditor) -> wire.Script:
    """Read an edit script: the bytes of a JSON file, or of a result's PNG, which contains its script."""
    async with editor.uploads:
        script = await editor.in_thread(EditScript.from_file, await _file(request))
    return wire.Script(script=script)


@api.post("/jobs", status_code=202, responses=refuses(403, 404, 413, 422, 429))
async def post_job(request: wire.JobRequest, editor: SharedEditor) -> wire.JobState:
    """Queue edits of a photograph: variants with consecutive seeds, starting with the script's."""
    script = request.script
    if script.seed + request.variants > 2**32:
        raise HTTPException(422, f"{request.variants} variants from seed {script.seed} would exceed the largest seed")
    work, suffix = editor.work(request)
    job = Job(work, script, request.variants, script.sampling.steps or editor.model.steps, suffix)
    editor.jobs.submit(job)
    return editor.jobs.state(job)


@api.get("/jobs/{id}", responses=refuses(404, 422))
async def get_job(job: FoundJob, editor: SharedEditor) -> wire.JobState:
    """The current state of a job."""
    return editor.jobs.state(job)


@api.get("/jobs/{id}/events", response_class=EventSourceResponse, responses=refuses(404, 422, events=True))
async def get_events(job: Annotated[Job, Depends(_heard)], editor: SharedEditor) -> AsyncIterator[wire.JobState]:
    """The state of a job now and at each change, until it ends. It is cancelled when the last listener leaves."""
    async for state in editor.jobs.states(job):
        yield state


@api.delete("/jobs/{id}", responses=refuses(403, 404, 422))
async def delete_job(job: FoundJob, editor: SharedEditor) -> wire.JobState:
    """Cancel a job. Its finished results stay."""
    editor.jobs.cancel(job)
    return editor.jobs.state(job)


@api.get("/jobs/{id}/{k}.{suffix}", **gives(*(f"image/{format.lower()}" for format in FORMATS)))
async def get_result(job: FoundJob, k: int, suffix: str) -> Response:
    """The k-th result, counted from 0: the photograph in its own size and format, as `elements edit` writes it."""
    return Response(_result(job, k, suffix), media_type=f"image/{suffix}")


@api.get("/jobs/{id}/{k}.{suffix}/view", **gives("image/jpeg", "image/png"))
async def get_result_view(job: FoundJob, k: int, suffix: str, editor: SharedEditor) -> Response:
    """The k-th result for display."""
    view = await editor.in_thread(lambda encoded: view_of(decoded(encoded)), _result(job, k, suffix))
    return Response(view.encoded, media_type=view.type)


def _result(job: Job, k: int, suffix: str) -> bytes:
    if not 0 <= k < len(job.results) or suffix != job.suffix:
        raise HTTPException(404, f"job {job.id!r} has no result {k}.{suffix} (yet)")
    return job.results[k]


async def _file(request: Request) -> bytes:
    """Read the complete body of a request. Raises HTTPException if it does not arrive or breaks off."""
    try:
        with fail_after(UPLOAD_SECONDS):
            return await request.body()
    except TimeoutError:
        raise HTTPException(408, f"the file was not received within {UPLOAD_SECONDS} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the upload was interrupted") from None
