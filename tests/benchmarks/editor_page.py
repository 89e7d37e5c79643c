"""How soon the editor's page answers: upload to elements shown, a drag's frames, run to the first progress.

python -m tests.benchmarks.editor_page

In Chromium without a screen, on models of random weights: 64 elements at 64 px and 256 at 512 px, divided by SLIC;
medians.
A frame is what the page itself computes for one: its handlers of the pointer, and its drawing.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from elements_jax.cli.photos import Source, open_editing
from elements_jax.editor.server import make_app
from tests.browser.conftest import SIZE_64, SIZE_512, launch, write_model
from tests.browser.driver import Driver
from tests.editor.conftest import served

TIMES = 5
TIMED = """(() => {
    window.spent = [];
    let moving = 0;
    const timed = (work, done) => function (...args) {
        const start = performance.now();
        work.apply(this, args);
        done(performance.now() - start);
    };
    const listen = EventTarget.prototype.addEventListener;
    EventTarget.prototype.addEventListener = function (kind, work, options) {
        listen.call(this, kind, kind === "pointermove" ? timed(work, (ms) => (moving += ms)) : work, options);
    };
    const frame = window.requestAnimationFrame;
    window.requestAnimationFrame = (work) => frame(timed(work, (ms) => (window.spent.push(moving + ms), (moving = 0))));
    window.times = {};
    const since = (kind) => (times[kind] = -performance.now());
    listen.call(document, "change", () => since("upload"), true);
    listen.call(document, "keydown", ({ key }) => key === "Enter" && since("run"), true);
    listen.call(document, "DOMContentLoaded", () => {
        const end = (kind) => times[kind] < 0 && (times[kind] += performance.now());
        const watch = (query, shown, kind) => new MutationObserver(([{ target }]) => {
            if (target.textContent.includes(shown)) end(kind);
        }).observe(document.querySelector(query), { childList: true });
        watch("#status", "elements.", "upload");
        watch("#progress-text", "step ", "run");
    });
})()"""


def measure(page: Page, address: str, photo: np.ndarray) -> dict[str, list[float]]:
    """Milliseconds of each thing."""
    page.add_init_script(TIMED)
    editor = Driver(page, address)
    size = page.request.get(f"{address}/api/model").json()["image_size"]
    found: dict[str, list[float]] = {"upload": [], "frame": [], "run": []}
    for k in range(TIMES + 1):  # the first compiles
        editor.upload(np.roll(photo, k, axis=0))
        found["upload"].append(taken(editor, "upload"))
    editor.keys("b")
    editor.drag((0.2 * size, 0.1 * size), (0.5 * size, 0.5 * size), size=size)
    editor.press(0.35 * size, 0.3 * size, size=size)
    page.evaluate("window.spent.length = 0")
    for k in range(60):
        page.mouse.move(*editor.place((0.35 * size + k * size / 200, 0.3 * size + k * size / 400), size=size))
        page.evaluate("() => new Promise(requestAnimationFrame)")
    found["frame"] = [ms for ms in page.evaluate("window.spent") if ms > 0.2]
    page.mouse.up()
    editor.settled()
    for _ in range(TIMES + 1):
        editor.keys("Control+Enter")
        found["run"].append(taken(editor, "run"))
        expect(editor.status).to_contain_text("Done")
        editor.keys("Escape")
    return found


def taken(editor: Driver, kind: str) -> float:
    """Milliseconds from the user's act to what was waited for."""
    read = f"window.times.{kind} ?? -1"
    editor.until(lambda: editor.page.evaluate(read) > 0)
    return editor.page.evaluate(read)


def main() -> None:
    """Print a line for each size."""
    photo = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((512, 512)))
    for name, config in (("64 px, 64 elements", SIZE_64), ("512 px, 256 elements", SIZE_512)):
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            editing = open_editing(str(write_model(Path(folder), config)), Source("slic"))
            browser = launch(playwright)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            with served(make_app(editing, name="random", segmenter="slic")) as address:
                found = measure(page, address, photo)
                browser.close()
        upload, run = (statistics.median(found[each][1:]) for each in ("upload", "run"))
        frame, slowest = statistics.median(found["frame"]), max(found["frame"])
        print(
            f"{name}: upload to elements {upload:.0f} ms; frame of a drag {frame:.1f} ms (slowest of "
            f"{len(found['frame'])}: {slowest:.1f}); run to first progress {run:.0f} ms"
        )


if __name__ == "__main__":
    main()
