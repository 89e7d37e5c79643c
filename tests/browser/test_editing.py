"""Gestures: their immediate preview, their edits in the script, and undo."""

import json

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.driver import BLUE, RED, Driver, file_of, photograph


@pytest.fixture
def square(opened: Driver) -> Driver:
    """The red square is selected."""
    opened.select(20, 20)
    return opened


def point_of(edit: dict) -> None:
    np.testing.assert_allclose(edit["object"]["point"], [20 / 96, 20 / 64], atol=1e-2)


def test_drag_previews_object_and_filled_gap_without_a_request(square):
    square.until(lambda: square.gaps_filled)  # already when the square is selected
    requests = len(square.requests)
    slope = square.pixel(50, 24)
    square.press(24, 24)
    square.page.mouse.move(*square.place((54, 30)), steps=5)
    expect(square.status).to_have_text("Move by 30, 6 px.")
    square.shows(50, 30, colour=RED)
    expected = photograph()[40, 20]  # the slope of greys goes on
    square.until(lambda: np.abs(np.subtract(square.pixel(20, 20)[:3], expected)).max() <= 12)
    square.page.mouse.up()
    expect(square.status).to_contain_text("Moved. The gap will be filled")
    assert len(square.requests) == requests
    assert square.box() == (46, 22, 16, 16)
    [edit] = square.edits()
    assert (edit["edit"], edit["by"]) == ("move", [30 / 96, 6 / 64])
    point_of(edit)
    square.keys("Control+z")
    square.shows(50, 24, colour=slope[:3])
    expect(square.status).to_have_text("Undone: moved.")
    assert square.box() == (16, 16, 16, 16)
    square.keys("Control+y")
    square.shows(50, 30, colour=RED)


def test_a_gap_is_striped_until_its_preview_arrives(opened):
    opened.page.route("**/preview", lambda route: None)  # never answered
    opened.select(20, 20)
    opened.keys("Delete")
    opened.until(lambda: opened.pixel(20, 20)[:3] != RED)
    colours = {opened.pixel(x, 24) for x in range(18, 30)}
    assert len(colours) > 1
    assert not any(np.abs(np.subtract(colour[:3], photograph()[40, 24])).max() <= 12 for colour in colours)


def test_alt_drags_a_copy_and_shift_keeps_to_an_axis(square):
    square.drag((24, 24), (54, 30), keys="Alt")
    expect(square.status).to_have_text("Copied.")
    square.shows(20, 20, colour=RED)
    square.shows(50, 30, colour=RED)
    square.drag((54, 30), (58, 44), keys="Shift")
    [edit] = square.edits()
    assert edit["edit"] == "duplicate"
    np.testing.assert_allclose(edit["by"], [30 / 96, 20 / 64], atol=1e-6)


def test_copy_and_paste_the_selection(square):
    square.keys("Control+c")
    expect(square.status).to_have_text("Copied. Paste with Ctrl+V.")
    square.keys("Escape", "Control+v")
    expect(square.status).to_contain_text("Drag the copy where you want it.")
    [edit] = square.edits()
    assert edit["edit"] == "duplicate"
    point_of(edit)


def test_second_move_starts_where_the_first_ended(square):
    square.drag((24, 24), (54, 24))
    square.keys("Escape")
    square.drag((54, 24), (54, 44))
    first, second = square.edits()
    assert first["object"] == second["object"]
    assert second["by"] == [0, 20 / 64]
    assert square.box() == (46, 36, 16, 16)
    square.click(20, 20)
    expect(square.status).to_contain_text("A gap")


def test_an_object_dragged_out_of_the_frame_can_be_fetched_back(square):
    square.drag((24, 24), (3, 24))
    square.drag((4, 24), (-7, 24))
    assert square.box()[0] == -16
    square.keys("Escape")
    square.click(-1, 24)  # next to the photograph
    expect(square.status).to_have_text("Selected.")
    assert square.box()[0] == -16


def test_escape_ends_a_drag(square):
    square.press(24, 24)
    square.page.mouse.move(*square.place((54, 24)), steps=5)
    square.shows(50, 24, colour=RED)
    square.keys("Escape")
    square.shows(20, 20, colour=RED)
    square.page.mouse.up()
    assert square.edits() == []
    assert square.box() == (16, 16, 16, 16)


@pytest.mark.parametrize(
    ("handle", "to", "keys", "scale", "anchor"),
    [
        ((32, 32), (40, 40), "", 1.5, [16 / 96, 0.25]),
        ((16, 16), (8, 8), "", 1.5, [32 / 96, 0.5]),
        ((32, 32), (40, 36), "Shift", [1.5, 1.25], [16 / 96, 0.25]),
        ((32, 24), (36, 40), "", [1.25, 1.0], [16 / 96, None]),
        ((24, 16), (20, 24), "", [1.0, 0.5], [None, 0.5]),
    ],
)
def test_handles_resize_about_the_opposite_one(square, handle, to, keys, scale, anchor):
    square.press(*handle)
    if keys:
        square.page.keyboard.down(keys)
    square.page.mouse.move(*square.place(to), steps=4)
    expect(square.status).to_contain_text("Resize to")
    square.page.mouse.up()
    if keys:
        square.page.keyboard.up(keys)
    [edit] = square.edits()
    assert edit["edit"] == "resize"
    np.testing.assert_allclose(edit["scale"], scale, rtol=0.02)
    for found, wanted in zip(edit["anchor"], anchor, strict=True):
        assert wanted is None or found == pytest.approx(wanted, abs=0.01)


def test_numbers_move_and_resize(square):
    square.page.locator("#box-x").fill("40")
    square.page.locator("#box-x").press("Enter")
    assert square.box() == (40, 16, 16, 16)
    square.page.locator("#box-width").fill("8")
    square.page.locator("#box-width").press("Enter")
    assert square.box() == (40, 16, 8, 8)
    move, resize = square.edits()
    assert move["by"] == [0.25, 0]
    assert resize["scale"] == 0.5


def test_nudges_in_a_row_are_one_edit(square):
    square.keys("ArrowRight", "ArrowRight", "Shift+ArrowDown")
    square.until(lambda: len(square.edits()) == 1)
    [edit] = square.edits()
    assert edit["by"] == [2 / 96, 10 / 64]
    square.keys("ArrowRight", "ArrowLeft")
    square.page.wait_for_timeout(500)
    assert len(square.edits()) == 1, "an object back at its place is not an edit"


def test_a_deleted_object_leaves_a_marked_hole(square):
    square.keys("Delete")
    square.until(lambda: square.pixel(20, 20)[:3] != RED)
    assert square.box() == ()
    [edit] = square.edits()
    assert edit["edit"] == "delete"
    square.keys("Control+z")
    square.shows(20, 20, colour=RED)
    expect(square.status).to_have_text("Undone: deleted.")
    assert square.box() == (16, 16, 16, 16)


def test_a_copy_is_placed_by_its_own_edit(square):
    square.keys("Control+d")
    assert square.box() == (32, 16, 16, 16)
    square.shows(20, 20, colour=RED)
    square.shows(40, 24, colour=RED)
    square.drag((40, 24), (60, 44))
    square.keys("ArrowLeft")
    square.until(lambda: square.box()[:2] == (51, 36))
    assert square.edits()[0]["by"] == pytest.approx([35 / 96, 20 / 64])
    square.press(67, 52)  # its lower right handle
    square.page.mouse.move(*square.place((75, 60)), steps=4)
    square.page.mouse.up()
    [edit] = square.edits()
    assert edit["edit"] == "duplicate"
    assert edit["scale"] == pytest.approx(1.5, rel=0.02)
    assert square.box() == pytest.approx((51, 36, 24, 24), abs=1)
    square.keys("Delete")
    assert square.edits() == []


def test_a_shift_click_moves_two_objects_together(opened):
    image = photograph()
    image[40:50, 60:70] = BLUE
    opened.upload(image)
    opened.select(20, 20)
    opened.click(65, 45, keys="Shift")
    assert opened.box() == (16, 16, 54, 34)
    opened.drag((24, 24), (30, 24))
    opened.shows(72, 45, colour=BLUE)
    opened.shows(36, 24, colour=RED)
    [edit] = opened.edits()
    assert edit["object"] == {"mask": "mask-1.png"}


def test_objects_of_a_second_photograph_are_dragged_in(opened):
    opened.second(photograph(BLUE))
    opened.click(20, 20, stage=opened.tray)
    expect(opened.page.locator("#tray-selected")).to_have_text("Drag it over")
    opened.page.mouse.move(*opened.place((24, 24), opened.tray))
    opened.page.mouse.down()
    opened.page.mouse.move(*opened.place((60, 40)), steps=6)
    expect(opened.status).to_have_text("Insert here.")
    opened.shows(60, 40, colour=BLUE)
    opened.page.mouse.up()
    expect(opened.status).to_have_text("Inserted.")
    [edit] = opened.edits()
    assert (edit["edit"], edit["image"], edit["scale"]) == ("compose", "bird.png", 1)
    np.testing.assert_allclose(edit["by"], [36 / 96, 16 / 64], atol=0.01)
    opened.shows(60, 40, colour=BLUE)
    opened.shows(20, 20, colour=RED)
    opened.keys("Control+z")
    opened.tray.focus()
    opened.keys("i")
    opened.shows(20, 20, colour=BLUE)
    assert opened.edits()[0]["by"] == [0, 0]


def test_a_script_is_saved_with_its_masks_and_loaded_again(opened, browser, address, tmp_path):
    opened.keys("l")
    opened.drag((16, 16), (32, 16), (32, 32), (16, 32))
    opened.drag((24, 24), (54, 24))
    opened.second(photograph(BLUE))
    opened.click(20, 20, stage=opened.tray)
    opened.page.get_by_role("button", name="Insert", exact=True).click()
    opened.page.get_by_label("Prompt", exact=True).fill("a red square")
    files = {}
    opened.page.on("download", lambda download: files.update({download.suggested_filename: download}))
    opened.page.get_by_role("button", name="Save script").click()
    expect(opened.status).to_contain_text("mask-1.png, bird.png")
    opened.until(lambda: len(files) == 3)
    for name, download in files.items():
        download.save_as(tmp_path / name)
    saved = json.loads((tmp_path / "edit.json").read_text())

    with browser.new_context() as context:
        other = Driver(context.new_page(), address)
        other.upload()
        other.page.locator("#script-file").set_input_files(tmp_path / "edit.json")
        dialog = other.page.get_by_role("dialog")
        for name in ("mask-1.png", "bird.png"):
            dialog.get_by_label(name).set_input_files(tmp_path / name)
        dialog.get_by_role("button", name="Use them").click()
        expect(other.status).to_contain_text("The script was loaded: 2 edits")
        other.shows(50, 24, colour=RED)
        other.shows(20, 20, colour=BLUE)
        assert other.edits() == saved["edits"]
        assert other.page.get_by_label("Prompt", exact=True).input_value() == "a red square"
        other.check()


def test_script_brings_its_masks_and_asks_before_losing_edits(opened, tmp_path):
    opened.keys("l")
    opened.drag((16, 16), (32, 16), (32, 32), (16, 32))
    opened.keys("Delete")
    assert opened.edits()[0]["object"] == {"mask": "mask-1.png"}
    mask = np.zeros((64, 96, 3), np.uint8)
    mask[40:48, 60:80] = 255
    script = {"version": 1, "edits": [{"edit": "delete", "object": {"mask": "mask-1.png"}}]}
    file = {"name": "edit.json", "mimeType": "application/json", "buffer": json.dumps(script).encode()}
    for accept in (False, True):
        opened.page.once("dialog", lambda asked, accept=accept: asked.accept() if accept else asked.dismiss())
        opened.page.locator("#script-file").set_input_files(file)
        dialog = opened.page.get_by_role("dialog")
        dialog.get_by_label("mask-1.png").set_input_files(file_of(mask, "mask-1.png"))
        dialog.get_by_role("button", name="Use them").click()
        expect(opened.status).to_contain_text("The script was loaded: 1 edit" if accept else "No script was loaded")
    opened.shows(20, 20, colour=RED)
    slope = tuple(photograph()[44, 70])
    opened.until(lambda: np.abs(np.subtract(opened.pixel(70, 44)[:3], slope)).max() > 10)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"version": 9}', "version"),
        (b"{", "edit.json"),
        (b'{"version": 1, "edits": [{"edit": "delete", "elements": [3]}]}', "names elements by number"),
        (b'{"version": 1, "edits": [{"edit": "continue", "image": "x.png"}]}', "continues from an earlier result"),
    ],
)
def test_a_script_that_does_not_fit_is_refused_by_name(opened, content, why):
    file = {"name": "edit.json", "mimeType": "application/json", "buffer": content}
    opened.page.locator("#script-file").set_input_files(file)
    expect(opened.status).to_contain_text("edit.json")
    expect(opened.status).to_contain_text(why)
    opened.refused()


def test_typed_keys_are_the_texts_own(square):
    square.page.get_by_label("Prompt", exact=True).focus()
    square.page.keyboard.type("a delete of all")
    square.keys("Control+a", "Delete")
    assert square.page.get_by_label("Prompt", exact=True).input_value() == ""
    assert square.edits() == []
    square.stage.focus()
    square.keys("?")
    expect(square.page.get_by_role("dialog")).to_contain_text("Nudge by 1 or 10 pixels")
    square.keys("Enter")
    expect(square.page.get_by_role("dialog")).to_be_hidden()
