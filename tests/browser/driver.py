"""Drives the editor's page as a person does, and reads from it what a person sees and what the server was sent."""

import base64
import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, Request, Response, expect

RED = (220, 30, 30)


def photograph(size: int = 64, colour: tuple[int, int, int] = RED) -> UInt8[np.ndarray, "H W 3"]:
    """A square over four cells of an 8 x 8 grid, on a slope of greys."""
    image = np.repeat(np.linspace(60, 200, size)[None, :, None], size, axis=0).repeat(3, axis=2).astype(np.uint8)
    image[size // 4 : size // 2, size // 4 : size // 2] = colour
    return image


def file_of(image: UInt8[np.ndarray, "H W 3"], name: str = "photo.png") -> dict[str, Any]:
    """A file to choose."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "png")
    return {"name": name, "mimeType": "image/png", "buffer": encoded.getvalue()}


class Driver:
    """One page. Places on pictures are (x, y) in pixels of the picture."""

    def __init__(self, page: Page, address: str):
        self.page = page
        self.requests: list[Request] = []
        self._answers: list[Response] = []
        self.problems: list[str] = []
        self._address = address
        page.on("request", lambda request: self.requests.append(request))
        page.on("response", self._keep_canvas)
        page.on("console", self._keep_problem)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(address)
        expect(self.status).to_have_text("Open a photograph to begin.")

    def _keep_canvas(self, response: Response) -> None:
        if response.url.endswith("/api/canvas") and response.ok:
            self._answers.append(response)

    def _keep_problem(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def check(self) -> None:
        """No request went to another host, and the console holds no errors."""
        for request in self.requests:
            parts = urlsplit(request.url)
            assert parts.scheme in ("data", "blob") or request.url.startswith(self._address), request.url
        assert self.problems == []

    def refused(self) -> None:
        """The browser noted a refusal, that the test expects."""
        assert [each for each in self.problems if "the server responded with a status of 4" in each] == self.problems
        self.problems.clear()

    # What is sent

    def sent(self, path: str, method: str = "POST") -> list[Any]:
        """Bodies of the requests to a path."""
        found = [r for r in self.requests if urlsplit(r.url).path == path and r.method == method]
        return [json.loads(request.post_data or "null") for request in found]

    @property
    def edits(self) -> list[dict[str, Any]]:
        """Those of the last request for a canvas."""
        return self.sent("/api/canvas")[-1]["script"].get("edits", [])

    @property
    def canvas(self) -> dict[str, Any]:
        """The server's last one."""
        return self._answers[-1].json()

    @property
    def live(self) -> set[int]:
        """Its elements."""
        return {element["number"] for element in self.canvas["elements"]}

    @property
    def labels(self) -> UInt16[np.ndarray, "S S"]:
        """Its label map."""
        labels = np.frombuffer(base64.b64decode(self.canvas["label_map"]), "<u2")
        return labels.reshape(self.canvas["size"], -1)

    @property
    def answered_picture(self) -> UInt8[np.ndarray, "S S 3"]:
        """Its preview."""
        encoded = base64.b64decode(self.canvas["preview"].partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(encoded)))

    # What is seen

    @property
    def status(self):
        return self.page.get_by_role("status")

    @property
    def stage(self):
        return self.page.locator("#stage")

    @property
    def tray(self):
        return self.page.locator("#tray-stage")

    def selected(self, stage: Any = None) -> set[int]:
        """What the picture says is selected."""
        label = (stage or self.stage).get_attribute("aria-label")
        return set(map(int, re.findall(r"\d+", label.partition("selected")[2])))

    def picture(self) -> UInt8[np.ndarray, "S S 4"]:
        """The pixels that the stage shows, transparent at holes, without what is drawn over them."""
        read = """async (canvas) => {
          await new Promise(requestAnimationFrame); // what is to be drawn is drawn with the next frame
          return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
        }"""
        pixels = np.array(self.stage.locator("canvas").first.evaluate(read), np.uint8)
        side = round((len(pixels) / 4) ** 0.5)
        return pixels.reshape(side, side, 4)

    def settled(self) -> None:
        """The server has answered."""
        expect(self.stage).to_have_attribute("aria-busy", "false")

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for what playwright has no `expect` for: the page's own policy forbids its polling there."""
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.page.wait_for_timeout(20)

    def shows(self, box: tuple[slice, slice], pixel: tuple[int, ...]) -> None:
        """Wait until the stage shows a pixel (RGB, or RGBA) all over a box of (rows, columns)."""
        self.until(lambda: (self.picture()[box][..., : len(pixel)] == pixel).all())

    # What is done

    def upload(self, image: UInt8[np.ndarray, "H W 3"] | None = None, **options: Any) -> None:
        self.page.get_by_label("Photograph", exact=True).set_input_files(
            file_of(photograph() if image is None else image, **options)
        )
        expect(self.status).to_contain_text("elements.", timeout=60_000)  # the first time compiles

    def second(self, image: UInt8[np.ndarray, "H W 3"], name: str = "bird.png") -> None:
        self.page.locator("#second-file").set_input_files(file_of(image, name))
        expect(self.status).to_contain_text("beside the canvas")

    def place(self, at: tuple[float, float], stage: Any = None, size: int = 64) -> tuple[float, float]:
        """Where a pixel's corner is on the screen."""
        box = (stage or self.stage).bounding_box()
        return box["x"] + at[0] * box["width"] / size, box["y"] + at[1] * box["height"] / size

    def click(self, *at: float, keys: str = "", stage: Any = None, button: Any = "left") -> None:
        if keys:
            self.page.keyboard.down(keys)
        self.page.mouse.click(*self.place(at, stage), button=button)
        if keys:
            self.page.keyboard.up(keys)

    def press(self, *at: float, stage: Any = None, size: int = 64) -> None:
        self.page.mouse.move(*self.place(at, stage, size))
        self.page.mouse.down()

    def drag(self, *path: tuple[float, float], keys: str = "", stage: Any = None, size: int = 64) -> None:
        """Press at the first place, and let go at the last."""
        if keys:
            self.page.keyboard.down(keys)
        self.press(*path[0], stage=stage, size=size)
        for at in path[1:]:
            self.page.mouse.move(*self.place(at, stage, size), steps=4)
        self.page.mouse.up()
        if keys:
            self.page.keyboard.up(keys)

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def save(self, button: str, folder: Path) -> Path:
        """What a button downloads."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name=button).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path
