"""The API's endpoints. Each refuses with a status and one sentence."""

import base64
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from anyio import fail_after
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.sse import EventSourceResponse
from starlette.requests import ClientDisconnect

from elements_jax.editing.edits import Canvas, covered_fraction
from elements_jax.editing.script import EditScript, Fit
from elements_jax.editor import wire
from elements_jax.editor.images import TooManyPixels, open_upload, png
from elements_jax.editor.jobs import Job
from elements_jax.editor.state import Editor

UPLOAD_SECONDS = 60
FILE = {"schema": {"type": "string", "format": "binary"}}
ERRORS = {
    400: "Another host than this machine, or a body that cannot be read.",
    403: "From a page of another origin.",
    404: "An id that is unknown, or was forgotten.",
    408: "The file did not arrive in time.",
    409: "The server has no SAM.",
    413: "Too many bytes, or pixels.",
    415: "No image, or a damaged one.",
    422: "A field that does not fit.",
    429: "The queue is full.",
}


async def _editor(request: Request) -> Editor:
    return request.app.state.editor


SharedEditor = Annotated[Editor, Depends(_editor)]


async def _job(id: str, editor: SharedEditor) -> Job:
    try:
        return editor.jobs[id]
    except KeyError:
        raise HTTPException(404, f"there is no job {id!r}, or it was forgotten") from None


FoundJob = Annotated[Job, Depends(_job)]


async def _heard(job: FoundJob, editor: SharedEditor) -> AsyncIterator[Job]:
    """The job while somebody listens to it."""
    with editor.jobs.listening(job):
        yield job


def refuses(*statuses: int, events: bool = False) -> dict[int | str, dict[str, Any]]:
    """The errors of an endpoint, as its OpenAPI declares them; of one of events FastAPI would declare them as such."""
    reference = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    body = {"content": reference} if events else {"model": wire.Error}
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": ERRORS[status], **body} for status in (400, *statuses)
    }
    if 429 in errors:
        seconds = {"description": "Seconds to wait.", "schema": {"type": "integer"}, "required": True}
        errors[429]["headers"] = {"Retry-After": seconds}
    return errors


def gives_png() -> dict[str, Any]:
    """The declarations of an endpoint whose response is a PNG."""
    found = {200: {"content": {"image/png": FILE}, "description": "The picture."}}
    return {"response_class": Response, "responses": refuses(404, 422) | found}


api = APIRouter(prefix="/api")


@api.get("/model", responses=refuses())
async def get_model(editor: SharedEditor) -> wire.Model:
    """The model, and what the server takes."""
    return editor.model


@api.post(
    "/images",
    status_code=201,
    responses=refuses(403, 408, 413, 415, 422),
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": FILE}}},
)
async def post_image(request: Request, editor: SharedEditor, fit: Fit = "crop") -> wire.Image:
    """Upload a photograph: the bytes of its file. The same photograph has the same id again."""
    async with editor.uploads:
        encoded = await _file(request)
        try:
            limit = editor.model.limits.pixels
            upload = await editor.in_thread(open_upload, encoded, fit, editor.editing, limit)
        except TooManyPixels as error:
            raise HTTPException(413, str(error)) from error
        except ValueError as error:
            raise HTTPException(415, str(error)) from error
    editor.images.keep(upload)
    return wire.Image(id=upload.id, width=upload.width, height=upload.height, box=upload.photo.box, said=upload.said)


@api.get("/images/{id}.png", **gives_png())
async def get_image(id: str, editor: SharedEditor) -> Response:
    """The square picture."""
    return Response(editor.upload(id).png, media_type="image/png")


@api.post("/canvas", responses=refuses(403, 404, 413, 422))
async def post_canvas(request: wire.Edits, editor: SharedEditor) -> wire.Canvas:
    """The elements after the edits of a script, and a preview."""
    _, edited = await editor.edit(request)
    return await editor.in_thread(_describe, edited.canvas)


@api.post("/objects", responses=refuses(403, 404, 409, 413, 422))
async def post_objects(request: wire.ObjectPoints, editor: SharedEditor) -> wire.Selection:
    """The elements of which more than half belongs to an object, found by SAM after the edits of a script."""
    select = editor.select_object
    if select is None:
        raise HTTPException(409, "this server has no SAM, that finds objects: start it with --checkpoint")
    _, edited = await editor.edit(request)

    def covered() -> list[int]:
        points = (np.array(points, np.float32).reshape(-1, 2) for points in (request.positive, request.negative))
        canvas = edited.canvas
        mask = jnp.asarray(select(np.asarray(canvas.picture), *points))
        return np.flatnonzero(covered_fraction(canvas.label_map, mask, canvas.num_elements) > 0.5).tolist()

    return wire.Selection(elements=await editor.in_thread(covered))


@api.post(
    "/scripts",
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
    """Read an edit script: the bytes of a JSON file, or of a result's PNG, which carries its script."""
    async with editor.uploads:
        script = await editor.in_thread(EditScript.from_file, await _file(request))
    return wire.Script(script=script)


@api.post("/jobs", status_code=202, responses=refuses(403, 404, 409, 413, 415, 422, 429))
async def post_job(request: wire.JobRequest, editor: SharedEditor) -> wire.JobState:
    """Queue edits to be decoded: as many variants, with the script's seed and those that follow it."""
    script = request.script
    if script.seed + request.variants > 2**32:
        raise HTTPException(422, f"{request.variants} variants from seed {script.seed} would pass the largest seed")
    editor.jobs.require_room()  # before the work
    steps = script.sampling.steps or editor.model.steps
    if request.result == "photograph":
        work, suffix = await editor.in_thread(editor.whole, request)
        job = Job(work, script, request.variants, steps, suffix)
    else:
        photo, edited = await editor.edit(request)
        editing = editor.editing

        def work(script: EditScript, report: Callable[[], bool]) -> bytes:
            return editing.png(editing.decode(photo, edited, script, report), script)

        job = Job(work, script, request.variants, steps)
    editor.jobs.submit(job)
    return editor.jobs.state(job)


@api.get("/jobs/{id}", responses=refuses(404, 422))
async def get_job(job: FoundJob, editor: SharedEditor) -> wire.JobState:
    """A job as it is now."""
    return editor.jobs.state(job)


@api.get("/jobs/{id}/events", response_class=EventSourceResponse, responses=refuses(404, 422, events=True))
async def get_events(job: Annotated[Job, Depends(_heard)], editor: SharedEditor) -> AsyncIterator[wire.JobState]:
    """A job now and at each change, until it ends. It is cancelled when the last who listens here leaves."""
    async for state in editor.jobs.states(job):
        yield state


@api.delete("/jobs/{id}", responses=refuses(403, 404, 422))
async def delete_job(job: FoundJob, editor: SharedEditor) -> wire.JobState:
    """Cancel a job. What it has done until then stays."""
    editor.jobs.cancel(job)
    return editor.jobs.state(job)


@api.get("/jobs/{id}/{k}.{suffix}", **gives_png())
async def get_result(job: FoundJob, k: int, suffix: str) -> Response:
    """The k-th result, counted from 0. A square picture's PNG carries its script and settings."""
    if not 0 <= k < len(job.results) or suffix != job.suffix:
        raise HTTPException(404, f"job {job.id!r} has no result {k}.{suffix} (yet)")
    return Response(job.results[k], media_type=f"image/{suffix}")


async def _file(request: Request) -> bytes:
    """The whole body of a request. Raises HTTPException where it does not come, or breaks off."""
    try:
        with fail_after(UPLOAD_SECONDS):
            return await request.body()
    except TimeoutError:
        raise HTTPException(408, f"the file was not received within {UPLOAD_SECONDS} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the file broke off") from None


def _describe(canvas: Canvas) -> wire.Canvas:
    position, valid = np.asarray(canvas.elements.position), np.asarray(canvas.elements.valid)
    elements = [
        wire.Element(number=n, x=x, y=y, width=width, height=height)
        for n, (x, y, width, height) in enumerate(position.tolist())
        if valid[n]
    ]
    return wire.Canvas(
        size=canvas.label_map.shape[0],
        elements=elements,
        label_map=base64.b64encode(np.asarray(canvas.label_map).astype("<u2").tobytes()).decode(),
        preview="data:image/png;base64," + base64.b64encode(png(np.asarray(canvas.picture))).decode(),
        free=int((~valid).sum()),
    )
