"""The editor's HTTP server: the page, and the API that it and programs use.

The event loop only receives and answers. Photographs are opened and edited on a few threads, and decoded on one
(`jobs`). Whatever is refused is answered with a status and one sentence (`wire.Error`).
"""

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TypeVar

import jax.numpy as jnp
import numpy as np
import uvicorn
from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.sse import EventSourceResponse
from fastapi.staticfiles import StaticFiles
from jaxtyping import Bool, Float, UInt8
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect

import elements_jax
from elements_jax.data.photo import Photo
from elements_jax.diffusion.samplers import SAMPLERS
from elements_jax.editing.apply import Edited, apply_script
from elements_jax.editing.edits import Canvas, covered_by
from elements_jax.editing.script import Compose, Continue, Delete, EditError, EditScript, Fit, Move, explain
from elements_jax.editor import docs, wire
from elements_jax.editor.guard import Guard
from elements_jax.editor.images import Images, TooManyPixels, Upload, open_upload, png
from elements_jax.editor.jobs import Full, Job, Jobs
from elements_jax.pipeline.session import Editing

STATIC = Path(__file__).with_name("static")
THREADS = 2
"""That open and edit photographs at once."""
UPLOADS = 4
"""Files that are received at once; others wait, and are not in memory yet."""
UPLOAD_SECONDS = 60
IMAGES, IMAGE_BYTES = 100, 256 * 2**20
"""Photographs that are kept."""
JSON_BYTES = 2 * 2**20
"""Of all bodies but files."""
DEFAULT_LIMITS = wire.Limits()

DESCRIPTION = (
    "Edit photographs by their elements, as the editor's page does and as `elements edit` does: the same script gives "
    "the same bytes. A photograph is uploaded, a job edits and decodes it, and its results are PNG files that carry "
    "their script. Uploads and jobs are in memory alone, and the oldest are forgotten."
)
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

T = TypeVar("T")
SelectObject = Callable[
    [UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "P 2"], Float[np.ndarray, "Q 2"]], Bool[np.ndarray, "H W"]
]
"""The mask of the object that positive points (x, y) lie on and negative ones do not, in units of the sides."""


@dataclass(frozen=True, eq=False)
class Editor:
    """What the endpoints share."""

    editing: Editing
    model: wire.Model
    select_object: SelectObject | None
    images: Images
    jobs: Jobs
    threads: CapacityLimiter
    uploads: CapacityLimiter

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on one of the threads, when one is free."""
        return await to_thread.run_sync(function, *args, limiter=self.threads)

    def upload(self, id: str) -> Upload:
        """Raises HTTPException for an image that is not here."""
        try:
            return self.images[id]
        except KeyError:
            raise HTTPException(404, f"there is no image {id!r}, or it was forgotten: upload it again") from None

    async def edit(self, request: wire.Edits) -> tuple[Photo, Edited]:
        """The photograph of a request and what its script makes of it. Raises HTTPException or EditError."""
        upload, *rest = (self.upload(id) for id in (request.image, *request.images.values()))
        for each in (upload, *rest):
            if each.fit != request.script.fit:  # the command line would open it otherwise, and give another picture
                raise EditError(
                    f"fit: image {each.id!r} was uploaded with {each.fit}, but the script says {request.script.fit}"
                )
        others = dict(zip(request.images, rest, strict=True))

        def open_image(name: str, within: Bool[np.ndarray, "H W"] | None) -> Canvas:
            if name not in others:
                raise EditError(f"the script names {name!r}, which is not in images")
            return others[name].canvas if within is None else self.editing.canvas(others[name].photo, within)

        return upload.photo, await self.in_thread(apply, request.script, upload.canvas, open_image)

    def warm_up(self) -> None:
        """Compile what every edit needs, by editing and decoding a picture of nothing."""
        config = self.editing.pipeline.config.elements
        side, cells = config.image_size, np.arange(config.image_size) * config.grid // config.image_size
        blank = Photo(np.zeros((side, side, 3), np.uint8), cells[:, None] * config.grid + cells, (0, 0, side, side))
        canvas = self.editing.canvas(blank)
        script = EditScript((Move((0,), (0.0, 0.0)), Delete((1,)), Compose("", (0,)), Continue("")))
        self.editing.decode(blank, apply_script(script, canvas, lambda *_: canvas), script)


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
        return np.flatnonzero(covered_by(canvas.label_map, mask, canvas.num_elements) > 0.5).tolist()

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


@api.post("/jobs", status_code=202, responses=refuses(403, 404, 413, 422, 429))
async def post_job(request: wire.JobRequest, editor: SharedEditor) -> wire.JobState:
    """Queue edits to be decoded: as many variants, with the script's seed and those that follow it."""
    script = request.script
    if script.seed + request.variants > 2**32:
        raise HTTPException(422, f"{request.variants} variants from seed {script.seed} would pass the largest seed")
    editor.jobs.require_room()  # before the work
    steps = script.sampling.steps or editor.model.steps
    job = Job(await editor.edit(request), script, request.variants, steps)
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


@api.get("/jobs/{id}/{k}.png", **gives_png())
async def get_result(job: FoundJob, k: int) -> Response:
    """The k-th result, counted from 0: a PNG that carries its script and settings."""
    if not 0 <= k < len(job.results):
        raise HTTPException(404, f"job {job.id!r} has no result {k} (yet)")
    return Response(job.results[k], media_type="image/png")


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


def make_app(
    editing: Editing,
    *,
    name: str,
    segmenter: str,
    notice: str | None = None,
    select_object: SelectObject | None = None,
    limits: wire.Limits = DEFAULT_LIMITS,
) -> FastAPI:
    """The application.

    Args:
        name: of the model.
        segmenter: that `editing` divides photographs by, in words.
        notice: what people should know of the model.
        select_object: finds objects from points, where there is a SAM.
    """
    config = editing.pipeline.config
    model = wire.Model(
        name=name,
        image_size=config.elements.image_size,
        num_elements=config.elements.num_elements,
        steps=config.diffusion.sample_steps,
        guidance=config.diffusion.guidance,
        samplers=list(SAMPLERS),
        segmenter=segmenter,
        select_objects=select_object is not None,
        notice=notice,
        limits=limits,
    )
    editor = Editor(
        editing,
        model,
        select_object,
        Images(IMAGES, IMAGE_BYTES),
        Jobs(editing, limits.queue),
        CapacityLimiter(THREADS),
        CapacityLimiter(UPLOADS),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        decoding = asyncio.create_task(editor.jobs.run(editor.warm_up))
        yield
        decoding.cancel()

    app = FastAPI(
        title="Editable image elements",
        description=DESCRIPTION,
        version=elements_jax.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.editor = editor
    app.include_router(api)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def api_page() -> HTMLResponse:
        return HTMLResponse(docs.page(app.openapi()))

    for kind in (StarletteHTTPException, RequestValidationError, EditError, Full, Exception):
        app.add_exception_handler(kind, refuse)
    app.add_middleware(GZipMiddleware)
    files = dict.fromkeys(("/api/images", "/api/scripts"), limits.upload_bytes)
    app.add_middleware(Guard, body_bytes=JSON_BYTES, of_path=files)
    return app


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Every error as its status and one sentence."""
    status, headers = 422, {}
    match error:
        case StarletteHTTPException():
            status, sentence, headers = error.status_code, str(error.detail), dict(error.headers or {})
        case RequestValidationError():
            sentence = _first(error)
        case EditError():
            sentence = str(error)
        case Full():
            status, headers = 429, {"Retry-After": str(error.seconds)}
            sentence = f"the queue is full; try again in {error.seconds} s"
        case _:
            status, sentence = 500, "the server has a fault; its terminal says more"
    return JSONResponse({"error": sentence}, status, headers)


def _first(error: RequestValidationError) -> str:
    """The first of pydantic's errors, by the field that it is in."""
    first = error.errors()[0]
    where, *path = first["loc"]
    if path and path[0] == "script":
        return f"script: {explain({**first, 'loc': path[1:]})}"
    return f"{'.'.join(map(str, path or [where]))}: {first['msg']}"


def serve(app: FastAPI, port: int, ready: Callable[[str], object]) -> None:
    """Serve on this machine alone, until interrupted; `ready` is given the page's address as soon as it is reachable.

    Raises OSError where the port is taken.
    """
    with socket.create_server(("127.0.0.1", port)) as listening:
        ready(f"http://localhost:{listening.getsockname()[1]}")
        _Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End at once: there is nothing to save, and a compilation, which may take minutes, cannot be interrupted."""
        os._exit(128 + sig)
