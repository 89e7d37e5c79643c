"""Opening photographs, looking at them, and selecting on them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.driver import BLUE, RED, Driver, file_of, photograph


def test_all_of_the_photograph_is_shown_in_its_own_shape(opened):
    expect(opened.page.locator("#said")).to_have_text("photo.png, 96 x 64 px")
    assert opened.stage.get_attribute("aria-label") == "photo.png, nothing selected"
    image = photograph()
    for x, y in ((0, 0), (95, 0), (0, 63), (95, 63), (20, 20)):
        opened.shows(x, y, colour=tuple(image[y, x]))


def test_a_turned_photograph_is_shown_upright(editor):
    exif = Image.Exif()
    exif[0x0112] = 8
    editor.upload(np.rot90(photograph(), -1), exif=exif)
    expect(editor.page.locator("#said")).to_have_text("photo.png, 96 x 64 px")
    editor.shows(20, 20, colour=RED)


def test_the_example_opens(editor):
    editor.page.get_by_role("button", name="an example").click()
    expect(editor.status).to_contain_text("example.png: click")


def test_a_long_name_leaves_the_photograph_its_room(opened):
    width = opened.stage.bounding_box()["width"]
    opened.upload(photograph(BLUE), name="x" * 150 + ".png")
    assert opened.stage.bounding_box()["width"] == width
    opened.second(photograph(), name="y" * 150 + ".png")
    assert opened.stage.bounding_box()["width"] > width / 2


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photograph_may_be_dropped_or_pasted(editor, kind):
    file = file_of(photograph(BLUE))
    target, holder = ("#place", "dataTransfer") if kind == "drop" else ("body", "clipboardData")
    editor.page.evaluate(
        """([kind, target, holder, encoded]) => {
            const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
            const Kind = kind === "drop" ? DragEvent : ClipboardEvent;
            const event = new Kind(kind, { [holder]: data, bubbles: true, cancelable: true });
            document.querySelector(target).dispatchEvent(event);
        }""",
        [kind, target, holder, base64.b64encode(file["buffer"]).decode()],
    )
    expect(editor.status).to_contain_text("dropped.png: click")
    editor.shows(20, 20, colour=BLUE)


def test_rejects_non_image_files_by_name_and_loses_nothing(opened):
    opened.select(20, 20)
    for name, content in (("notes.txt", b"no picture"), ("phone.heic", b"\0\0\0\x18ftypheic" + b"\0" * 100)):
        file = {"name": name, "mimeType": "image/png", "buffer": content}
        opened.page.locator("#photo-file").set_input_files(file)
        expect(opened.status).to_contain_text(f"{name}: this file can't be read")
        expect(opened.status).to_contain_text("HEI")
    assert opened.box() == (16, 16, 16, 16)
    opened.refused()


def test_a_click_selects_the_object_that_the_server_finds(opened):
    opened.select(20.5, 24.5)
    assert opened.box() == (16, 16, 16, 16)
    [request] = opened.sent("/api/objects")
    np.testing.assert_allclose(request["object"]["point"], [20.5 / 96, 24.5 / 64], atol=2e-3)
    assert opened.stage.get_attribute("aria-label") == "photo.png, one object selected"
    opened.keys("Escape")
    assert opened.box() == ()


def test_a_click_selects_a_piece_shift_adds_and_alt_takes_away(opened):
    opened.keys("p")
    opened.click(1, 1)
    assert opened.box() == (0, 0, 12, 8)
    opened.click(13, 1, keys="Shift")
    assert opened.box() == (0, 0, 24, 8)
    opened.click(1, 1, keys="Alt")
    assert opened.box() == (12, 0, 12, 8)
    opened.click(90, 60)
    assert opened.box() == (84, 56, 12, 8)


def test_a_box_finds_the_object_in_it_and_the_tool_rests(opened):
    opened.keys("b")
    opened.drag((16, 16), (24, 40))
    expect(opened.status).to_contain_text("Selected 8 x 24 px")
    assert opened.box() == (16, 16, 8, 24)
    expect(opened.page.get_by_role("button", name="Object", exact=True)).to_have_attribute("aria-pressed", "true")
    opened.keys("b")
    opened.drag((40, 16), (48, 20), keys="Shift")
    assert opened.box() == (16, 16, 32, 24)
    expect(opened.page.get_by_role("button", name="Box")).to_have_attribute("aria-pressed", "true")


def test_a_box_begun_inside_the_selection_draws(opened):
    opened.select(20, 20)
    opened.keys("b")
    opened.drag((20, 20), (28, 24))
    expect(opened.status).to_contain_text("Selected 8 x 4 px")
    assert opened.edits() == []


def test_a_lasso_selects_exactly_its_inside(opened):
    opened.keys("l")
    opened.drag((40, 10), (60, 10), (60, 30), (40, 30))
    assert opened.box() == (40, 10, 20, 20)
    opened.keys("Delete")
    [edit] = opened.edits()
    assert edit["object"] == {"mask": "mask-1.png"}


def test_a_brush_paints_a_selection_and_alt_takes_away(opened):
    opened.keys("r")
    width = opened.page.locator("#brush-width")
    expect(width).to_be_visible()
    opened.drag((30, 50), (60, 50))
    left, top, wide, high = opened.box()
    assert (left + wide / 2, top + high / 2) == pytest.approx((45, 50), abs=1)
    assert wide == pytest.approx(30 + high, abs=2)
    for _ in range(20):
        opened.keys("]")
    opened.drag((45, 50), (70, 50), keys="Alt")
    assert opened.box()[2] < wide


def test_selection_is_not_rounded_to_elements(opened):
    image = photograph()
    image[50:53, 70:77] = BLUE
    opened.upload(image)
    opened.select(72, 51)
    assert opened.box() == (70, 50, 7, 3)


def test_wheel_keys_and_buttons_zoom_at_pointer_and_space_pans(opened: Driver):
    zoom = opened.page.locator("#zoom-fit")
    whole = zoom.inner_text()
    opened.page.mouse.move(*opened.place((24.5, 24.5)))
    for _ in range(10):
        opened.page.mouse.wheel(0, -100)
    opened.until(lambda: int(zoom.inner_text().split()[0]) > 5 * int(whole.split()[0]))
    opened.page.mouse.click(*opened.place((24.5, 24.5)))
    expect(opened.status).to_contain_text("Selected 16 x 16")  # the same point is still under the pointer
    opened.keys("-", "+", "0")
    expect(zoom).to_have_text(whole)
    opened.page.get_by_role("button", name="Zoom in").click()
    expect(zoom).not_to_have_text(whole)
    zoom.click()
    before = opened.pixel(1, 1)
    opened.page.keyboard.down(" ")
    opened.drag((10, 10), (30, 10))
    opened.page.keyboard.up(" ")
    assert opened.edits() == []
    opened.until(lambda: opened.pixel(1, 1) != before)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (768, 1024), (390, 844)])
def test_photograph_fits_every_window_size_without_overlaps(opened: Driver, width, height):
    opened.page.set_viewport_size({"width": width, "height": height})
    opened.upload()
    opened.select(20, 20)
    box = opened.stage.bounding_box()
    assert box["width"] >= 0.6 * width
    assert box["height"] >= 300
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    overlapping = opened.page.evaluate(
        """() => {
            const controls = [...document.querySelectorAll("button, input, select, textarea")];
            const shown = controls.filter((e) => e.checkVisibility());
            const beside = (a, b, from, to) => a[to] <= b[from] + 1 || b[to] <= a[from] + 1;
            const overlap = (a, b) => {
                const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
                return !beside(p, q, "left", "right") && !beside(p, q, "top", "bottom");
            };
            const pairs = shown.flatMap((a, i) => shown.slice(i + 1).map((b) => [a, b]));
            return pairs.filter(([a, b]) => overlap(a, b)).map((pair) => pair.map((e) => e.outerHTML));
        }"""
    )
    assert overlapping == []


def test_a_finger_moves_and_two_fingers_zoom(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    editor = Driver(context.new_page(), address)
    editor.upload()
    editor.page.touchscreen.tap(*editor.place((20, 20)))
    expect(editor.status).to_contain_text("Selected")
    session = context.new_cdp_session(editor.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [dict(zip("xy", editor.place(at), strict=True), id=i) for i, at in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (24, 24))
    for x in (30, 40, 54):
        touch("touchMove", (x, 24))
    touch("touchEnd")
    expect(editor.status).to_contain_text("Moved")
    [edit] = editor.edits()
    assert edit["edit"] == "move"
    np.testing.assert_allclose(edit["by"], [30 / 96, 0], atol=1 / 96)

    zoom = editor.page.locator("#zoom-fit")
    before = int(zoom.inner_text().split()[0])
    touch("touchStart", (40, 40))
    touch("touchStart", (40, 40), (50, 40))
    for x in (55, 60, 70):
        touch("touchMove", (40, 40), (x, 40))
    touch("touchEnd")
    editor.until(lambda: int(zoom.inner_text().split()[0]) > 2 * before)
    assert len(editor.edits()) == 1
    editor.check()
    context.close()


def test_every_control_has_a_name(opened):
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea")]
            .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim() || e.title))
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []


def test_the_view_of_a_jpeg_is_close_to_it(editor):
    image = photograph()
    editor.upload(image, name="photo.jpg", quality=95)
    seen = np.asarray(Image.open(io.BytesIO(file_of(image, "photo.jpg", quality=95)["buffer"])))
    pixel = np.array(editor.pixel(60, 40)[:3], int)
    assert np.abs(pixel - seen[40, 60]).max() < 8
