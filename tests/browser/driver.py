"""Drive the editor's page as a person does, and read its contents and its requests to the server."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, Request, expect

RED, BLUE = (220, 30, 30), (40, 60, 230)
WIDTH, HEIGHT = 96, 64
SQUARE = (16, 16, 32, 32)
"""Left, top, right and bottom of the coloured square in `photograph`."""


def photograph(colour: tuple[int, int, int] = RED) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a square of one colour on a slope of greys, wider than high."""
    image = np.repeat(np.linspace(60, 200, WIDTH)[None, :, None], HEIGHT, axis=0).repeat(3, axis=2).astype(np.uint8)
    left, top, right, bottom = SQUARE
    image[top:bottom, left:right] = colour
    return image


def file_of(image: UInt8[np.ndarray, "H W 3"], name: str = "photo.png", **options: Any) -> dict[str, Any]:
    """Return a file to choose."""
    encoded = io.BytesIO()
    kind = "jpeg" if name.endswith(".jpg") else "png"
    Image.fromarray(image).save(encoded, kind, **options)
    return {"name": name, "mimeType": f"image/{kind}", "buffer": encoded.getvalue()}


class Driver:
    """One page. Places on images are (x, y) in pixels of the image."""

    def __init__(self, page: Page, address: str, begins: str = "Open a photo to begin."):
        self.page = page
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self._address = address
        page.on("request", lambda request: self.requests.append(request))
        page.on("console", self._keep_problem)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(address)
        expect(self.status).to_have_text(begins)

    def _keep_problem(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def check(self) -> None:
        """Check that no request went to another host, and that the console has no errors."""
        for request in self.requests:
            parts = urlsplit(request.url)
            assert parts.scheme in ("data", "blob") or request.url.startswith(self._address), request.url
        assert self.problems == []

    def refused(self) -> None:
        """Accept a refusal in the console, which the test expects."""
        assert [each for each in self.problems if "the server responded with a status of 4" in each] == self.problems
        self.problems.clear()

    # Requests

    def sent(self, path: str, method: str = "POST") -> list[Any]:
        """Return the bodies of the requests to a path."""
        found = [r for r in self.requests if urlsplit(r.url).path == path and r.method == method]
        return [json.loads(request.post_data or "null") for request in found]

    def edits(self) -> list[dict[str, Any]]:
        """Return the edits of a saved script."""
        with self.page.expect_download(lambda download: download.suggested_filename == "edit.json") as download:
            self.page.get_by_role("button", name="Save script").click()
        return json.loads(download.value.path().read_text())["edits"]

    # The page's contents

    @property
    def gaps_filled(self) -> int:
        """The number of previews of gaps that the server has sent."""
        asked = [request for request in self.requests if request.url.endswith("/preview")]
        return sum(request.response() is not None for request in asked)

    @property
    def status(self):
        return self.page.get_by_role("status")

    @property
    def stage(self):
        return self.page.locator("#stage")

    @property
    def tray(self):
        return self.page.locator("#tray-stage")

    def box(self) -> tuple[int, ...]:
        """Return the selection's box (left, top, width, height); empty if nothing is selected."""
        values = [self.page.locator(f"#box-{name}").input_value() for name in ("x", "y", "width", "height")]
        return tuple(int(value) for value in values if value)

    def pixel(self, *at: float, stage: Any = None) -> tuple[int, ...]:
        """Return the colour (RGBA) that the canvas shows in the middle of a pixel."""
        left, top, _, _ = self._frame(stage)
        x, y = self.place((at[0] + 0.5, at[1] + 0.5), stage)
        read = """async (canvas, [x, y]) => {
          await new Promise(requestAnimationFrame); // what is to be drawn is drawn with the next frame
          return [...canvas.getContext("2d").getImageData(x * devicePixelRatio, y * devicePixelRatio, 1, 1).data];
        }"""
        return tuple((stage or self.stage).locator("canvas").first.evaluate(read, [x - left, y - top]))

    def shows(self, *at: float, colour: tuple[int, int, int]) -> None:
        """Wait until a colour is shown at a pixel, up to rounding."""
        self.until(lambda: np.abs(np.subtract(self.pixel(*at)[:3], colour)).max() <= 3)

    def settled(self) -> None:
        """Wait until the server has answered."""
        expect(self.stage).not_to_have_attribute("aria-busy", "true")

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition without a playwright `expect`: the page's own policy forbids playwright's polling."""
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.page.wait_for_timeout(20)

    # Actions

    def upload(self, image: UInt8[np.ndarray, "H W 3"] | None = None, name: str = "photo.png", **options: Any) -> None:
        file = file_of(photograph() if image is None else image, name, **options)
        self.page.get_by_label("Photograph", exact=True).set_input_files(file)
        expect(self.status).to_contain_text(f"{name}: click")

    def second(self, image: UInt8[np.ndarray, "H W 3"], name: str = "bird.png") -> None:
        self.page.locator("#second-file").set_input_files(file_of(image, name))
        expect(self.status).to_contain_text("next to the photo")

    def _frame(self, stage: Any = None) -> tuple[float, float, float, float]:
        box = (stage or self.stage).bounding_box()
        return box["x"], box["y"], box["width"], box["height"]

    def place(self, at: tuple[float, float], stage: Any = None) -> tuple[float, float]:
        """Return the place of a pixel's corner on the screen, while the complete image is visible."""
        left, top, width, height = self._frame(stage)
        k = min((width - 32) / WIDTH, (height - 32) / HEIGHT)
        return left + (width - WIDTH * k) / 2 + at[0] * k, top + (height - HEIGHT * k) / 2 + at[1] * k

    def click(self, *at: float, keys: str = "", stage: Any = None) -> None:
        if keys:
            self.page.keyboard.down(keys)
        self.page.mouse.click(*self.place(at, stage))
        if keys:
            self.page.keyboard.up(keys)
        self.settled()

    def select(self, *at: float) -> None:
        """Click an object, and wait until it is selected."""
        self.click(*at)
        expect(self.status).to_contain_text("Selected")

    def press(self, *at: float, stage: Any = None) -> None:
        self.page.mouse.move(*self.place(at, stage))
        self.page.mouse.down()

    def drag(self, *path: tuple[float, float], keys: str = "", stage: Any = None) -> None:
        """Press at the first place, and let go at the last."""
        if keys:
            self.page.keyboard.down(keys)
        self.press(*path[0], stage=stage)
        for at in path[1:]:
            self.page.mouse.move(*self.place(at, stage), steps=4)
        self.page.mouse.up()
        if keys:
            self.page.keyboard.up(keys)
        self.settled()

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def run(self, results: int = 1) -> None:
        self.keys("Control+Enter")
        expect(self.status).to_have_text(f"Done: {results} result{'s' * (results > 1)}.", timeout=60_000)

    def save(self, button: str, folder: Path) -> Path:
        """Return the file that a button downloads."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name=button).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path
