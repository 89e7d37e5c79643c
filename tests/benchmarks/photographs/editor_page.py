"""How soon the editor's page answers: upload to photograph shown, selection to the preview of its gap, a drag's frames,
run to the first progress.

python -m tests.benchmarks.photographs.editor_page

It runs headless Chromium on a model of random weights, with photographs of two sizes, and prints medians. A frame is
the page's own work for one frame: its pointer handlers and its drawing. The run is the first after the warm-up; the
first preview, which compiles, does not count.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from elements_jax.cli.photos import SegmenterOptions, open_editing
from tests.browser.conftest import SIZE_64, launch
from tests.browser.driver import Driver
from tests.editor.conftest import app_of, served
from tests.helpers.models import write_random_model

TIMES = 3
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
        watch("#status", ": click", "upload");
        watch("#progress-text", "ing ", "run"); // not "Waiting"
    });
})()"""


def measure(page: Page, address: str, photo: np.ndarray) -> dict[str, list[float]]:
    """Return the milliseconds of each action."""
    page.add_init_script(TIMED)
    editor = Driver(page, address)
    found: dict[str, list[float]] = {"upload": [], "gap": [], "frame": [], "run": []}
    for k in range(TIMES):
        editor.upload(np.roll(photo, k, axis=0))
        found["upload"].append(taken(editor, "upload"))
    left, top, width, height = editor.stage.bounding_box().values()
    centre = left + width / 2, top + height / 2
    for k in range(1 + TIMES):
        editor.keys("Escape", "l")
        page.mouse.move(centre[0] - 100 - k, centre[1] - 100)
        page.mouse.down()
        for x, y in ((100, -100), (100, 100), (-100, 100)):
            page.mouse.move(centre[0] + x, centre[1] + y, steps=4)
        page.mouse.up()
        start, before = time.perf_counter(), editor.gaps_filled
        editor.until(lambda before=before: editor.gaps_filled > before)
        found["gap"].append(1000 * (time.perf_counter() - start))
    del found["gap"][0]
    page.mouse.move(*centre)
    page.mouse.down()
    page.evaluate("window.spent.length = 0")
    for k in range(60):
        page.mouse.move(centre[0] + k, centre[1] + k / 2)
        page.evaluate("() => new Promise(requestAnimationFrame)")
    found["frame"] = [ms for ms in page.evaluate("window.spent") if ms > 0.2]
    page.mouse.up()
    expect(editor.status).to_contain_text("Moved")
    editor.keys("Control+Enter")
    found["run"].append(taken(editor, "run"))
    return found


def taken(editor: Driver, kind: str) -> float:
    """Return the milliseconds from the user's action to the awaited event."""
    read = f"window.times.{kind} ?? -1"
    editor.until(lambda: editor.page.evaluate(read) > 0)
    return editor.page.evaluate(read)


def main() -> None:
    """Print a line for each size."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        editing = open_editing(str(write_random_model(Path(folder), SIZE_64)), SegmenterOptions("slic"))
        app = app_of(editing, name="random")
        app.state.editor.warm_up()
        browser = launch(playwright)
        with served(app) as address:
            for size in ((600, 400), (4000, 3000)):
                photo = np.asarray(Image.fromarray(skimage.data.coffee()).resize(size))
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                found = measure(page, address, photo)
                page.close()
                upload, gap, frame, run = (statistics.median(each) for each in found.values())
                slowest = f"slowest of {len(found['frame'])}: {max(found['frame']):.1f}"
                print(
                    f"{size[0]} x {size[1]} px: upload to photograph {upload:.0f} ms; selection to filled gap "
                    f"{gap:.0f} ms; frame of a drag {frame:.1f} ms ({slowest}); run to first progress {run:.0f} ms"
                )
        browser.close()


if __name__ == "__main__":
    main()
