"""The editor's HTTP server: the page, and the API used by the page and by programs.

The event loop only receives and answers. A few threads open photographs and find objects; one runs edits (`jobs`).
Every error is answered with a status and one sentence (`wire.Error`).
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.gzip import GZipMiddleware

import elements_jax
from elements_jax.diffusion.samplers import SAMPLERS
from elements_jax.editing.script import EditError, explain
from elements_jax.editor import docs, wire
from elements_jax.editor.guard import Guard
from elements_jax.editor.images import Images
from elements_jax.editor.jobs import Full, Jobs
from elements_jax.editor.routes import api
from elements_jax.editor.state import Editor, Pieces
from elements_jax.photograph.repaint import Label
from elements_jax.photograph.selecting import FindObject
from elements_jax.pipeline.session import EditSession

STATIC = Path(__file__).with_name("static")
THREADS = 2
"""Threads that open photographs and find objects."""
UPLOADS = 64
"""Files received at once, so many that slow ones keep nobody waiting. Others are not in memory yet."""
IMAGES, IMAGE_BYTES = 100, 256 * 2**20
"""Maximum number of photographs kept in memory."""
JSON_BYTES = 2 * 2**20
"""Maximum size of all bodies except files."""
DEFAULT_LIMITS = wire.Limits()

DESCRIPTION = (
    "Edit photographs like the editor's page and `elements edit`: the same script gives the same bytes. A "
    "photograph is uploaded, a job edits it, and its results are photographs of the same size and format. Uploads and "
    "jobs are only in memory, and the oldest are forgotten."
)


def make_app(
    editing: EditSession,
    *,
    name: str,
    segmenter: str,
    label: Label,
    pieces: Pieces,
    notice: str | None = None,
    find_object: FindObject | None = None,
    points: bool = False,
    limits: wire.Limits = DEFAULT_LIMITS,
    names: Sequence[str] = (),
    remote: bool = False,
) -> FastAPI:
    """Make the application.

    Args:
        name: name of the model.
        segmenter: description of how windows of photographs are segmented.
        label: segments a window into elements.
        pieces: segments an image of any size into pieces to select.
        notice: notice about the model for users.
        find_object: finds objects of photographs, as located in scripts.
        points: whether it can find them from points.
        names: host names of the page, besides localhost.
        remote: whether other machines may use this machine's address.
    """
    config = editing.pipeline.config
    model = wire.Model(
        name=name,
        image_size=config.elements.image_size,
        prompts=editing.pipeline.has_diffusion,
        steps=config.diffusion.sample_steps,
        guidance=config.diffusion.guidance,
        samplers=list(SAMPLERS),
        segmenter=segmenter,
        select_objects=points,
        notice=notice,
        limits=limits,
    )
    editor = Editor(
        editing,
        model,
        label,
        pieces,
        find_object,
        Images(IMAGES, IMAGE_BYTES),
        Jobs(limits.queue),
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
    app.add_middleware(Guard, body_bytes=JSON_BYTES, of_path=files, names=frozenset(names), remote=remote)
    return app


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer an error with its status and one sentence."""
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
            status, sentence = 500, "internal error; see the server's terminal"
    return JSONResponse({"error": sentence}, status, headers)


def _first(error: RequestValidationError) -> str:
    """Format the first pydantic error with its field."""
    first = error.errors()[0]
    where, *path = first["loc"]
    if first["type"] == "json_invalid":
        return f"invalid JSON at character {path[0]}"
    if path and path[0] == "script":
        return f"script: {explain({**first, 'loc': path[1:]})}"
    return f"{'.'.join(map(str, path or [where]))}: {first['msg']}"


def serve(app: FastAPI, host: str, port: int, root_path: str, ready: Callable[[str], object]) -> None:
    """Serve on an address of this machine until interrupted; `ready` is called with the page's URL once it is up.

    `root_path` is the path under which a proxy serves the page; the proxy strips it from requests.

    Raises ValueError if the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ValueError(f"cannot listen on {host}, port {port}: {reason}; choose another --port") from error
    with listening:
        shown = "localhost" if is_loopback(host) or host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}")
        _Server(uvicorn.Config(app, log_level="warning", root_path=root_path)).run(sockets=[listening])


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the address."""
    return host in ("localhost", "::1") or host.startswith("127.")


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Exit at once: there is nothing to save, and a compilation of several minutes cannot be interrupted."""
        os._exit(128 + sig)
