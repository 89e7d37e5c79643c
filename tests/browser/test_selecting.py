"""Opening photographs and selecting their elements."""

import base64
import hashlib

import numpy as np
import pytest
from playwright.sync_api import expect

from elements_jax.scenes import drawn as scenes
from tests.browser.driver import Driver, file_of, photograph

SQUARE = {18, 19, 26, 27}


def test_upload_shows_the_photograph_and_says_what_was_done(editor):
    wide = np.concatenate([photograph()] * 2, axis=1)
    editor.upload(wide)
    assert "Cropped to the centre square (50 % of your photo)" in editor.page.locator("#said").inner_text()
    assert next(r.url for r in editor.requests if "/api/images" in r.url).endswith("?fit=crop")
    assert "Picture of 64 elements, none selected" in editor.stage.get_attribute("aria-label")
    assert (editor.picture()[..., 3] == 255).all()
    assert editor.stage.bounding_box()["width"] % 64 == 0, "pixels are enlarged by a whole number"


def test_the_example_opens_with_its_caption(editor):
    editor.page.get_by_role("button", name="an example").click()
    expect(editor.status).to_contain_text("elements.", timeout=60_000)  # the first time compiles
    expect(editor.page.locator("#prompt")).to_have_value(scenes.scene(1_000_004).caption)
    expected = np.dstack([scenes.render(scenes.scene(1_000_004))[0], np.full((64, 64), 255)])
    np.testing.assert_array_equal(editor.picture(), expected)


def test_pad_leaves_margins_that_are_no_elements(editor):
    editor.page.get_by_label("Pictures that are not square").select_option("pad")
    editor.upload(np.concatenate([photograph()] * 2, axis=1))
    assert "margins" in editor.page.locator("#said").inner_text()
    assert len(editor.live) == 32
    editor.click(4, 4)
    assert editor.selected() == set()


def test_a_photograph_is_dropped_and_pasted(editor):
    file = file_of(photograph())["buffer"]
    encoded = base64.b64encode(file).decode()
    for kind, target, holder in (("drop", "#place", "dataTransfer"), ("paste", "body", "clipboardData")):
        editor.page.evaluate(
            """([kind, target, holder, encoded]) => {
                const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
                const data = new DataTransfer();
                data.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
                const Kind = { drop: DragEvent, paste: ClipboardEvent }[kind];
                const event = new Kind(kind, { [holder]: data, bubbles: true, cancelable: true });
                document.querySelector(target).dispatchEvent(event);
            }""",
            [kind, target, holder, encoded],
        )
        expect(editor.status).to_contain_text("elements.")
        received = editor.sent("/api/canvas")[-1]["image"]
        assert received == hashlib.sha256(b"crop " + file).hexdigest()[:32], "the id is that of the file's bytes"


def test_what_is_no_picture_is_refused_in_the_servers_words_and_nothing_is_lost(opened):
    opened.click(20, 20)
    opened.page.locator("#photo-file").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    expect(opened.status).to_contain_text("can't be read")
    assert opened.selected() == {18}
    opened.refused()


def test_clicks_select_add_and_take_away(opened):
    opened.click(20, 20)
    assert opened.selected() == {18}
    opened.click(28, 20, keys="Shift")
    opened.click(28, 28, keys="Shift")
    assert opened.selected() == {18, 19, 27}
    opened.click(20, 20, keys="Alt")
    assert opened.selected() == {19, 27}
    opened.click(60, 60)
    assert opened.selected() == {63}
    opened.keys("Escape")
    assert opened.selected() == set()
    opened.keys("Control+a")
    assert len(opened.selected()) == 64


def test_a_box_selects_what_lies_more_than_half_inside(opened):
    opened.keys("b")
    opened.drag((17, 17), (25, 30), (30.5, 30.5))
    assert opened.selected() == SQUARE
    opened.drag((33, 17), (39, 31), keys="Shift")
    assert opened.selected() == SQUARE | {20, 28}
    opened.drag((33, 17), (39, 23), keys="Alt")
    assert opened.selected() == SQUARE | {28}
    opened.drag((41, 17), (43, 31))
    assert opened.selected() == set(), "a quarter is not enough"


def test_a_box_may_begin_beside_the_picture(opened):
    opened.drag((-5, 0.2), (10, 10), (15.9, 7.9))
    assert opened.selected() == {0, 1}


def test_a_lasso_selects_what_it_surrounds(opened):
    opened.keys("l")
    opened.drag((15, 15), (33, 15), (33, 33), (24, 20), (15, 33))
    assert opened.selected() == {18, 19}, "of the others too much lies outside"
    opened.keys("Escape")
    opened.drag((15.5, 15.5), (32.5, 15.5), (32.5, 32.5), (15.5, 32.5))
    assert opened.selected() == SQUARE


def test_an_object_is_found_from_points_on_it_and_beside_it(opened):
    opened.keys("o")
    opened.click(20.5, 20.5)
    expect(opened.status).to_contain_text("4 pieces")
    assert opened.selected() == SQUARE
    opened.click(60.5, 4.5)
    expect(opened.status).not_to_contain_text("4 pieces")
    assert opened.selected() > SQUARE
    opened.click(20.5, 20.5, keys="Alt")
    expect(opened.status).to_contain_text("Alt-click")
    opened.until(lambda: 18 not in opened.selected())
    asked = opened.sent("/api/objects")
    assert len(asked) == 3
    assert [len(a["positive"]) for a in asked] == [1, 2, 2]
    np.testing.assert_allclose(asked[2]["negative"], [[20.5 / 64, 20.5 / 64]], atol=1 / 64 / 8)
    opened.click(4, 30, button="right")
    expect(opened.status).to_contain_text("Object found")
    assert len(opened.sent("/api/objects")[-1]["negative"]) == 2


def test_boundaries_are_shown_and_hidden(opened):
    lines = opened.stage.locator("canvas").nth(1)
    drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v)"
    assert lines.evaluate(drawn)
    opened.keys("e")
    button = opened.page.get_by_role("button", name="Element boundaries")
    expect(button).to_have_attribute("aria-pressed", "false")
    opened.until(lambda: not lines.evaluate(drawn))


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1024, 700)])
def test_one_screen_holds_everything(opened: Driver, width, height):
    opened.page.set_viewport_size({"width": width, "height": height})
    opened.click(20, 20)
    overflowing = opened.page.evaluate(
        """() => [...document.querySelectorAll("header, main, aside, footer, .bar, #settings")]
            .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
            .map((e) => e.id || e.tagName)"""
    )
    assert overflowing == []
    assert opened.page.evaluate("document.documentElement.scrollHeight") <= height
