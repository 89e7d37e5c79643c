"""Gestures: what they show before the server is asked, what they tell it, and how they are undone."""

import json
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.driver import RED, Driver, photograph

SQUARE = [18, 19, 26, 27]


@pytest.fixture
def square(opened: Driver) -> Driver:
    """The red square is selected."""
    opened.drag((-2, -2), (0, 0))  # on nothing
    opened.keys("b")
    opened.drag((15, 15), (33, 33))
    opened.keys("v")
    assert opened.selected() == set(SQUARE)
    return opened


def hatched(editor: Driver) -> set[int]:
    """The elements that the status line says will be deleted."""
    found = re.search(r"\(hatched\): ([\d, ]+)", editor.status.inner_text())
    return set(map(int, found[1].split(","))) if found else set()


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_a_drag_hatches_exactly_what_the_server_then_deletes(square, tolerance):
    slider = square.page.get_by_label("Keep covered pieces")
    slider.fill(str(tolerance))
    square.settled()
    before = square.live
    requests = len(square.requests)
    square.press(24, 24)
    square.page.mouse.move(*square.place((40, 30)), steps=5)
    expect(square.status).to_contain_text("Move by 16, 6 px")
    doomed = hatched(square)
    assert len(square.requests) == requests, "a drag needs no server"
    square.shows(np.s_[22:38, 32:48], (*RED, 255))
    square.shows(np.s_[16:32, 16:32], (0, 0, 0, 0))  # what was left is a hole
    square.page.mouse.up()
    square.settled()
    assert square.edits == [{"edit": "move", "elements": SQUARE, "by": [0.25, 6 / 64]}]
    assert square.sent("/api/canvas")[-1]["script"]["tolerance"] == tolerance
    assert before - square.live == doomed
    assert len(doomed) == (4 if tolerance else 6), "of the lowest row only a quarter is covered"
    assert square.selected() == set(SQUARE)
    expect(square.status).to_contain_text(f"{len(doomed)} pieces beneath them will be filled in")


def test_the_hatch_is_red_and_gone_when_the_drag_is_cancelled(square):
    requests = len(square.requests)
    square.press(24, 24)
    square.page.mouse.move(*square.place((44, 24)), steps=3)
    expect(square.status).to_contain_text("Move by 20, 0 px")
    count = """c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) if (d[i] > 240 && d[i + 1] < 60 && d[i + 2] < 60 && d[i + 3] > 200) n++;
        return n; }"""
    marks = square.stage.locator("canvas").nth(2)
    square.until(lambda: marks.evaluate(count) > 1000)
    square.keys("Escape")
    square.until(lambda: marks.evaluate(count) < 1000)
    square.page.mouse.up()
    assert len(square.requests) == requests
    assert square.selected() == set(SQUARE)


def test_pressing_what_is_not_selected_drags_it_alone(opened):
    opened.drag((60, 60), (50, 60))
    opened.settled()
    assert opened.edits == [{"edit": "move", "elements": [63], "by": [-10 / 64, 0]}]


@pytest.mark.parametrize(
    ("handle", "to", "keys", "scale", "anchor"),
    [
        ((32, 32), (40, 40), "", 1.5, [0.25, 0.25]),
        ((16, 16), (8, 8), "", 1.5, [0.5, 0.5]),
        ((32, 32), (40, 36), "Shift", [1.5, 1.25], [0.25, 0.25]),
        ((32, 24), (36, 40), "", [1.25, 1.0], [0.25, 0.375]),
        ((24, 16), (20, 24), "", [1.0, 0.5], [0.375, 0.5]),
    ],
)
def test_handles_resize_about_the_opposite_one(square, handle, to, keys, scale, anchor):
    before = square.live
    square.press(*handle)
    if keys:
        square.page.keyboard.down(keys)
    square.page.mouse.move(*square.place(to), steps=4)
    expect(square.status).to_contain_text("Resize to")
    doomed = hatched(square)
    square.page.mouse.up()
    if keys:
        square.page.keyboard.up(keys)
    square.settled()
    assert square.edits == [{"edit": "resize", "elements": SQUARE, "scale": scale, "anchor": anchor}]
    assert before - square.live == doomed
    resized = np.isin(square.labels, SQUARE)
    square.until(lambda: ((square.picture() == (*RED, 255)).all(axis=-1) == resized).all())


def test_previews_are_the_servers_pixel_for_pixel(square, address):
    """Odd scales about odd anchors, on a picture in which no two pixels are alike."""
    square.upload(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    square.keys("b")
    square.drag((15, 15), (33, 33))
    square.keys("v")
    for handle, to in (((32, 32), (45, 41)), ((16, 16), (3, 9)), ((32, 32), (29, 25))):
        square.press(*handle)
        square.page.keyboard.down("Shift")
        square.page.mouse.move(*square.place(to), steps=3)
        expect(square.status).to_contain_text("Resize to")
        doomed, before = hatched(square), square.live
        square.page.wait_for_timeout(100)  # a frame
        preview = square.picture()
        square.page.mouse.up()
        square.page.keyboard.up("Shift")
        square.settled()
        assert before - square.live == doomed
        arrived = np.isin(square.labels, SQUARE)
        assert arrived.any()
        np.testing.assert_array_equal(preview[arrived, :3], square.answered_picture[arrived])
        square.keys("Control+z")
        square.settled()


def test_without_the_lock_a_corner_stretches(square):
    square.page.get_by_label("Keep aspect").uncheck(force=True)
    square.drag((32, 32), (40, 36))
    square.settled()
    assert square.edits[-1]["scale"] == [1.5, 1.25]


def test_numeric_fields_move_and_resize(square):
    page = square.page
    field = {name: page.locator(f"#box-{name}") for name in ("x", "y", "width", "height")}
    assert {name: each.input_value() for name, each in field.items()} == {
        "x": "16", "y": "16", "width": "16", "height": "16",
    }  # fmt: skip
    field["x"].fill("32")
    field["x"].press("Enter")
    square.settled()
    assert square.edits == [{"edit": "move", "elements": SQUARE, "by": [0.25, 0]}]
    page.get_by_label("Unit").select_option("%")
    assert field["x"].input_value() == "50"
    field["width"].fill("12.5")
    field["width"].press("Tab")
    square.settled()
    assert square.edits[-1] == {"edit": "resize", "elements": SQUARE, "scale": 0.5, "anchor": [0.5, 0.25]}
    assert field["height"].input_value() == "12.5", "the aspect is locked"


def test_a_burst_of_nudges_is_one_gesture(square):
    square.keys("ArrowRight", "ArrowRight", "Shift+ArrowDown", "ArrowUp")
    expect(square.page.get_by_role("button", name="Undo")).to_be_enabled()
    square.settled()
    assert square.edits == [{"edit": "move", "elements": SQUARE, "by": [2 / 64, 7 / 64]}]
    assert len(square.sent("/api/canvas")) == 2, "the photograph's, and that of the burst"
    square.keys("ArrowLeft")
    square.until(lambda: len(square.edits) == 2)
    square.settled()
    square.keys("Control+z", "Control+z")
    expect(square.page.get_by_role("button", name="Undo")).to_be_disabled()


def test_delete_leaves_a_hole_and_undo_and_redo_go_by_gesture(square):
    whole = square.picture()
    square.keys("Delete")
    square.settled()
    assert square.edits == [{"edit": "delete", "elements": SQUARE}]
    square.shows(np.s_[16:32, 16:32], (0, 0, 0, 0))
    assert square.selected() == set()
    square.drag((4, 4), (4, 24))
    square.settled()
    undo, redo = (square.page.get_by_role("button", name=name) for name in ("Undo", "Redo"))
    requests = len(square.requests)
    undo.click()
    assert square.selected() == {0}
    square.keys("Control+z")
    expect(undo).to_be_disabled()
    square.until(lambda: (square.picture() == whole).all())
    assert square.selected() == set(SQUARE)
    square.keys("Control+y")
    redo.click()
    expect(redo).to_be_disabled()
    square.shows(np.s_[16:24, 16:32], (0, 0, 0, 0))
    assert len(square.requests) == requests, "the canvases are still known"
    undo.click()
    square.keys("Backspace")
    square.settled()
    expect(redo).to_be_disabled()
    square.keys("Control+Shift+z")
    assert [each["edit"] for each in square.edits] == ["delete", "delete"]


def test_duplicate_makes_copies_that_are_moved_before_they_settle(square):
    square.keys("Escape", "b")
    square.drag((1, 47), (63, 63))  # its slots are for the copies
    square.keys("Delete")
    square.settled()
    square.keys("b")
    square.drag((15, 15), (33, 33))
    square.keys("Control+d")
    square.settled()
    assert square.edits[-1] == {"edit": "duplicate", "elements": SQUARE, "by": [0.25, 0], "scale": 1}
    copies = square.selected()
    assert len(copies) == 4
    assert not copies & set(SQUARE)
    assert square.live >= set(SQUARE)
    square.drag((40, 24), (40, 56))
    square.settled()
    assert square.edits[-1] == {"edit": "duplicate", "elements": SQUARE, "by": [0.25, 0.5], "scale": 1}
    assert len(square.edits) == 2
    assert {20, 21, 28, 29} <= square.live, "where it was first, nothing is lost"
    assert len(square.selected()) == 4
    square.keys("Control+z")
    square.settled()
    assert square.selected() == copies


def test_a_refused_edit_changes_nothing(square):
    square.keys("Control+d")  # no slot is free, but those that the copies themselves make so
    square.settled()
    before = square.edits
    requests = len(square.sent("/api/canvas"))
    square.keys("Control+a")
    square.keys("Control+d")
    expect(square.status).to_contain_text("find a place")
    assert len(square.sent("/api/canvas")) == requests + 1
    square.refused()
    expect(square.stage).to_have_attribute("aria-busy", "false")
    with square.page.expect_download() as download:
        square.page.get_by_role("button", name="Save script").click()
    assert json.loads(download.value.path().read_text())["edits"] == before


def test_elements_of_a_second_picture_are_dragged_in(opened):
    blue = photograph(colour=(40, 60, 230))
    opened.second(blue)
    opened.keys("b")
    opened.drag((15, 15), (33, 33), stage=opened.tray)
    assert "4 selected" in opened.page.locator("#tray-selected").inner_text()
    before = opened.live
    requests = len(opened.requests)
    x, y = opened.place((24, 24), opened.tray)
    opened.page.mouse.move(x, y)
    opened.page.mouse.down()
    opened.page.mouse.move(*opened.place((52, 50)), steps=6)
    expect(opened.status).to_contain_text("Insert here.")
    doomed = hatched(opened)
    assert doomed
    assert len(opened.requests) == requests
    opened.page.mouse.up()
    opened.settled()
    assert opened.edits == [
        {"edit": "compose", "image": "bird.png", "elements": SQUARE, "by": [28 / 64, 26 / 64], "scale": 1}
    ]
    assert list(opened.sent("/api/canvas")[-1]["images"]) == ["bird.png"]
    arrived = opened.selected()
    assert len(arrived) == 4
    assert before - opened.live | arrived >= doomed
    opened.shows(np.s_[42:58, 44:60], (40, 60, 230))
    opened.keys("ArrowLeft")  # adjusts where it was inserted
    opened.until(lambda: opened.edits[-1]["by"] == [27 / 64, 26 / 64])
    opened.settled()
    assert len(opened.edits) == 1
    opened.keys("Control+z", "Control+z")
    expect(opened.page.get_by_role("button", name="Undo")).to_be_disabled()


def test_insert_needs_no_pointer(opened):
    opened.second(photograph(colour=(40, 60, 230)))
    opened.tray.focus()
    opened.keys("n", "n")
    opened.page.get_by_role("button", name="Insert", exact=True).click()
    opened.settled()
    assert opened.edits == [{"edit": "compose", "image": "bird.png", "elements": [1], "by": [0, 0], "scale": 1}]


def test_everything_by_keyboard_alone(opened):
    opened.stage.focus()
    opened.keys("n", "Shift+n", "Shift+n", "p")
    assert opened.selected() == {63}
    opened.keys("n", "Shift+n")
    assert opened.selected() == {0, 1}
    opened.keys("ArrowDown")
    opened.until(lambda: opened.edits == [{"edit": "move", "elements": [0, 1], "by": [0, 1 / 64]}])
    opened.keys("?")
    expect(opened.page.get_by_role("dialog")).to_contain_text("Nudge by 1 or 8 pixels")
    opened.keys("Enter")
    expect(opened.page.get_by_role("dialog")).to_be_hidden()
    opened.page.get_by_label("Prompt", exact=True).focus()
    opened.page.keyboard.type("a delete of all")
    opened.keys("Control+a", "Delete")
    assert opened.page.get_by_label("Prompt", exact=True).input_value() == "", "typed keys are text's own"
    assert len(opened.edits) == 1


def test_every_control_has_a_name(opened):
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea")]
            .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim() || e.title))
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
