"""The editor's server on a model of a few thousand random parameters; and one whose decoder advances step by step."""

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jaxtyping import UInt8, UInt16
from PIL import Image

from elements_jax.cli.photos import PhotoSegmenter, SegmenterOptions, open_editing
from elements_jax.editing.script import ObjectAt
from elements_jax.editor.server import make_app
from elements_jax.editor.wire import Limits
from elements_jax.photograph.selecting import Found
from elements_jax.pipeline.session import Cancelled, EditSession

LOCAL = "http://localhost:8000"
SMALL_LIMITS = Limits(upload_bytes=200_000, pixels=250_000, queue=3)
DELETE = {"edit": "delete", "object": {"box": [0.25, 0.25, 0.5, 0.5]}}


def find_exactly(image: UInt8[np.ndarray, "H W 3"], at: ObjectAt) -> Found:
    """Stand in for SAM: find all of a box, or the pixels with the colour of a point."""
    height, width = image.shape[:2]
    if at.box is not None:
        left, top, right, bottom = np.rint(np.array(at.box) * (width, height, width, height)).astype(int)
        mask = np.zeros((height, width), bool)
        mask[top:bottom, left:right] = True
        return mask, 1.0
    assert at.point is not None
    x, y = min(int(at.point[0] * width), width - 1), min(int(at.point[1] * height), height - 1)
    return np.abs(image.astype(int) - image[y, x]).max(axis=-1) < 30, 1.0


def eighths(image: UInt8[np.ndarray, "H W 3"]) -> UInt16[np.ndarray, "H W"]:
    """Return an 8 x 8 grid of pieces."""
    height, width = image.shape[:2]
    return (np.arange(height)[:, None] * 8 // height * 8 + np.arange(width) * 8 // width).astype(np.uint16)


def app_of(editing: EditSession, **options: Any) -> FastAPI:
    """Return a server with stand-ins for the search of objects and pieces."""
    label = PhotoSegmenter(editing.pipeline.config.elements, SegmenterOptions("grid")).label
    defaults = {"name": "small", "segmenter": "grid", "find_object": find_exactly, "points": True}
    return make_app(editing, label=label, pieces=eighths, **defaults | options)


class StepByStep(EditSession):
    """Decodes to black, and waits before each step for the test."""

    def __init__(self, editing: EditSession):
        self.__dict__.update(editing.__dict__)
        self.steps = threading.Semaphore(0)
        self.asked = 0

    def decode(self, photo: Any, edited: Any, script: Any, report: Callable[[], bool] = lambda: True) -> np.ndarray:
        if script.prompt == "fail":
            raise RuntimeError("no memory\nat all")
        for _ in range(script.sampling.steps or 2):
            self.asked += 1
            if not report():
                raise Cancelled
            assert self.steps.acquire(timeout=30)
        return np.zeros_like(photo.image)

    def go_on(self, steps: int = 1) -> None:
        self.steps.release(steps)


@pytest.fixture(scope="session")
def editing(model_folder: Path) -> EditSession:
    return open_editing(str(model_folder), SegmenterOptions("grid"))


@pytest.fixture(scope="session")
def app(editing: EditSession) -> FastAPI:
    return app_of(editing, limits=SMALL_LIMITS)


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=LOCAL) as client:
        yield client


@pytest.fixture
def stepping(editing: EditSession) -> StepByStep:
    return StepByStep(editing)


@pytest.fixture
def slow_client(stepping: StepByStep) -> Iterator[TestClient]:
    """A server whose decoder waits for the test, warmed up."""
    stepping.go_on(2)
    with TestClient(app_of(stepping, limits=SMALL_LIMITS), base_url=LOCAL) as client:
        yield client
        stepping.go_on(1000)


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Run a real server in a thread, and yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def encode(image: np.ndarray, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def upload(client: Any, image: np.ndarray | None = None) -> str:
    """Upload an image and return its id."""
    response = client.post("/api/images", content=encode(noise(16, 16) if image is None else image))
    assert response.status_code == 201, response.text
    return response.json()["id"]


def script(*edits: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"version": 1, "edits": list(edits), **fields}
