"""Runs, their progress and results; what is saved, loaded and continued; and what is kept when a server fails."""

import json

import numpy as np
import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from elements_jax.editing.script import EditScript
from tests.browser.driver import Driver, file_of, photograph
from tests.editor.conftest import StepByStep, served

SQUARE = [18, 19, 26, 27]


def fill_in(editor: Driver) -> None:
    page = editor.page
    page.get_by_label("Prompt", exact=True).fill("a red square")
    page.get_by_label("Negative prompt").fill("a blue square")
    page.get_by_label("Sampler").select_option("euler")
    page.get_by_label("Steps").fill("3")
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_label("Lock seed").check()
    page.get_by_label("Variants").fill("2")
    page.get_by_label("Separate guidance for pieces").check()
    page.locator("[name=guidance]").fill("2.5")
    page.locator("[name=element_guidance]").fill("4")
    page.get_by_label("Preserve").check()


FILLED_IN = {
    "prompt": "a red square",
    "negative_prompt": "a blue square",
    "seed": 7,
    "tolerance": 0,
    "fit": "crop",
    "preserve": True,
    "sampling": {"sampler": "euler", "steps": 3, "guidance": 2.5, "element_guidance": 4, "eta": None},
}


def run(editor: Driver, results: int = 1) -> None:
    editor.keys("Control+Enter")
    expect(editor.status).to_have_text(f"Done: {results} result{'s' * (results > 1)}.", timeout=60_000)


def thumbnails(editor: Driver):
    return editor.page.locator("#gallery button")


def test_a_run_sends_the_script_and_shows_its_variants(opened, editing):
    fill_in(opened)
    opened.click(20, 20)
    opened.keys("Delete")
    opened.settled()
    run(opened, 2)
    [job] = opened.sent("/api/jobs")
    assert job["variants"] == 2
    assert job["script"] == {"version": 1, "edits": [{"edit": "delete", "elements": [18]}], **FILLED_IN}
    expect(thumbnails(opened)).to_have_count(2)
    expect(opened.page.locator("#result-name")).to_have_text("Result 1, seed 7")
    thumbnails(opened).nth(1).click()
    expect(opened.page.locator("#result-name")).to_have_text("Result 2, seed 8")
    expect(thumbnails(opened).nth(1)).to_have_attribute("aria-pressed", "true")


def test_what_is_downloaded_is_what_the_engine_makes(opened, editing, tmp_path):
    opened.page.get_by_label("Seed", exact=True).fill("3")
    opened.page.get_by_label("Lock seed").check()
    opened.drag((4, 4), (4, 24))
    opened.settled()
    run(opened)
    png = opened.save("Download PNG", tmp_path)
    script = EditScript.from_file(opened.save("Save script", tmp_path).read_bytes())
    photo = editing.open(file_of(photograph())["buffer"], "crop")
    edited = editing.edit(photo, script, lambda name: photo)
    assert png.read_bytes() == editing.png(editing.decode(photo, edited, script), script)
    assert EditScript.from_file(png.read_bytes()) == script


def test_an_unlocked_seed_is_another_one_each_run(opened):
    run(opened)
    opened.keys("Escape")
    run(opened)
    seeds = [job["script"]["seed"] for job in opened.sent("/api/jobs")]
    assert seeds[0] != seeds[1]


def test_the_background_button_fills_the_prompt(opened):
    opened.page.get_by_role("button", name="background").click()
    run(opened)
    assert opened.sent("/api/jobs")[0]["script"]["prompt"] == "background"


def test_before_and_after_by_pointer_and_keyboard(opened):
    run(opened)
    slider = opened.page.get_by_label("Before and after")
    box = slider.bounding_box()
    opened.page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 50)
    at = int(slider.input_value())
    assert at == pytest.approx(25, abs=2)
    shown = opened.page.locator("#before").evaluate("e => getComputedStyle(e).getPropertyValue('--split')")
    assert shown == f"{at}%", "as much of the picture before is seen"
    opened.keys("ArrowRight", "ArrowRight")
    assert int(slider.input_value()) == at + 2
    widths = [opened.page.locator(name).evaluate("i => i.naturalWidth") for name in ("#before", "#after")]
    assert widths == [64, 64]
    opened.keys("Escape")
    expect(opened.stage).to_be_visible()


def test_keys_leave_the_canvas_alone_while_a_result_is_shown(opened):
    opened.click(20, 20)
    run(opened)
    opened.keys("Delete", "ArrowRight", "Control+d")
    opened.page.wait_for_timeout(500)
    opened.keys("Escape")
    assert opened.edits == []
    assert opened.selected() == {18}


def test_a_photograph_with_edits_is_replaced_only_when_asked(opened):
    opened.click(20, 20)
    opened.keys("Delete")
    opened.settled()
    asked = []
    opened.page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    opened.page.locator("#photo-file").set_input_files(file_of(photograph(colour=(40, 60, 230))))
    opened.until(lambda: asked)
    expect(opened.page.get_by_role("button", name="Undo")).to_be_enabled()
    opened.page.once("dialog", lambda dialog: dialog.accept())
    opened.upload(photograph(colour=(40, 60, 230)))
    expect(opened.page.get_by_role("button", name="Undo")).to_be_disabled()
    opened.shows(np.s_[16:32, 16:32], (40, 60, 230))


def test_a_padded_result_lies_where_the_photograph_does(editor):
    editor.page.get_by_label("Pictures that are not square").select_option("pad")
    editor.upload(np.concatenate([photograph()] * 2, axis=1))
    run(editor)
    place, after = (editor.page.locator(name).bounding_box() for name in ("#compare", "#after"))
    assert after["width"] == pytest.approx(place["width"])
    assert after["height"] == pytest.approx(place["height"] / 2)
    assert after["y"] == pytest.approx(place["y"] + place["height"] / 4)


def test_continue_uploads_the_result_and_goes_on(opened, tmp_path):
    opened.page.get_by_label("Preserve").check()
    opened.click(20, 20)
    opened.keys("Delete")
    opened.settled()
    run(opened)
    opened.page.get_by_role("button", name="Continue from this").click()
    expect(opened.status).to_contain_text("Continuing from result 1")
    assert opened.edits == [{"edit": "delete", "elements": [18]}, {"edit": "continue", "image": "round-1.png"}]
    images = opened.sent("/api/canvas")[-1]["images"]
    assert list(images) == ["round-1.png"]
    assert (opened.picture()[..., 3] == 255).all(), "no hole is left"
    assert len(opened.live) == 64
    opened.drag((60, 60), (50, 60))
    opened.settled()
    run(opened)
    opened.page.get_by_role("button", name="Continue from this").click()
    expect(opened.status).to_contain_text("Continuing from result 2")
    assert [each.get("image") for each in opened.edits] == [None, "round-1.png", None, "round-2.png"]
    with opened.page.expect_download(lambda download: download.suggested_filename == "round-2.png"):
        opened.page.get_by_role("button", name="Save script").click()


def test_a_saved_script_is_loaded_again(opened, page, address, browser, tmp_path):
    fill_in(opened)
    opened.page.get_by_label("Keep covered pieces").fill("0.25")
    opened.second(photograph(colour=(40, 60, 230)))
    opened.click(4, 4, stage=opened.tray)
    opened.page.get_by_role("button", name="Insert", exact=True).click()
    opened.settled()
    path = opened.save("Save script", tmp_path)
    saved = json.loads(path.read_text())
    assert saved["edits"][0]["image"] == "bird.png"

    with browser.new_context() as context:
        other = Driver(context.new_page(), address)
        other.page.locator("#script-file").set_input_files(path)
        dialog = other.page.get_by_role("dialog")
        expect(dialog).to_contain_text("The photograph")
        dialog.get_by_label("The photograph").set_input_files(file_of(photograph()))
        dialog.get_by_label("bird.png").set_input_files(file_of(photograph(colour=(40, 60, 230)), "bird.png"))
        dialog.get_by_role("button", name="Use them").click()
        expect(other.status).to_contain_text("The script was loaded")
        run(other)
        assert other.sent("/api/jobs")[0]["script"] == saved
        np.testing.assert_array_equal(other.labels, opened.labels)
        other.check()


def test_a_result_carries_its_script(opened, tmp_path):
    opened.click(20, 20)
    opened.keys("Delete")
    opened.settled()
    run(opened)
    png = opened.save("Download PNG", tmp_path)
    opened.keys("Escape", "Control+z")
    opened.page.locator("#script-file").set_input_files(png)
    expect(opened.status).to_contain_text("The script was loaded: 1 edit")
    assert opened.edits == [{"edit": "delete", "elements": [18]}]
    opened.page.locator("#script-file").set_input_files(
        {"name": "x.json", "mimeType": "application/json", "buffer": b'{"version": 9}'}
    )
    expect(opened.status).to_contain_text("version")
    opened.refused()


@pytest.fixture
def slow(page: Page, slow_app: FastAPI, stepping: StepByStep):
    with served(slow_app) as address:
        editor = Driver(page, address)
        editor.upload()
        yield editor
        stepping.go_on(1000)
        editor.check()
        page.close()


def test_progress_is_shown_step_by_step(slow, stepping):
    slow.page.get_by_label("Steps").fill("3")
    slow.page.get_by_label("Variants").fill("2")
    slow.page.get_by_role("button", name="Run").click()
    text, bar = slow.page.locator("#progress-text"), slow.page.get_by_role("progressbar")
    expect(text).to_have_text("Variant 1 of 2, step 1 of 3")
    expect(slow.page.get_by_role("button", name="Run")).to_be_disabled()
    stepping.go_on(2)
    expect(text).to_have_text("Variant 1 of 2, step 3 of 3")
    assert bar.evaluate("bar => [bar.value, bar.max]") == [3, 6]
    stepping.go_on(2)
    expect(text).to_have_text("Variant 2 of 2, step 2 of 3")
    expect(thumbnails(slow)).to_have_count(1)
    stepping.go_on(2)
    expect(slow.status).to_have_text("Done: 2 results.")
    expect(bar).to_be_hidden()


def test_cancel_ends_the_run_and_keeps_what_was_done(slow, stepping):
    slow.page.get_by_label("Variants").fill("2")
    slow.page.get_by_role("button", name="Run").click()
    expect(slow.page.locator("#progress-text")).to_contain_text("step 1")
    stepping.go_on(2)
    expect(thumbnails(slow)).to_have_count(1)
    slow.page.get_by_role("button", name="Cancel").click()
    expect(slow.status).to_have_text("Cancelled after 1 result.")
    assert [r.method for r in slow.requests].count("DELETE") == 1
    expect(slow.page.get_by_role("button", name="Run")).to_be_enabled()


def test_a_failed_run_says_why(slow):
    slow.page.get_by_label("Prompt", exact=True).fill("fail")
    slow.page.get_by_role("button", name="Run").click()
    expect(slow.status).to_contain_text("no memory")
    expect(slow.page.get_by_role("button", name="Run")).to_be_enabled()


def test_a_closed_page_cancels_its_run(slow, slow_app, stepping):
    slow.page.get_by_role("button", name="Run").click()
    expect(slow.page.locator("#progress-text")).to_contain_text("step 1")
    [job] = slow_app.state.editor.jobs._jobs.values()
    slow.page.goto("about:blank")
    slow.until(lambda: job.status == "cancelled")


def test_without_sam_the_object_tool_says_why_it_is_off(slow):
    tool = slow.page.get_by_role("button", name="Object", exact=True)
    expect(tool).to_have_attribute("aria-disabled", "true")
    tool.click(force=True)
    expect(slow.status).to_contain_text("--checkpoint")
    slow.click(20, 20)
    assert slow.selected() == {18}


def test_a_server_that_forgot_the_pictures_gets_them_again(slow, slow_app, stepping):
    slow.second(photograph(colour=(40, 60, 230)))
    slow.click(4, 4, stage=slow.tray)
    slow_app.state.editor.images._kept.clear()
    slow.page.get_by_role("button", name="Insert", exact=True).click()
    slow.settled()
    expect(slow.page.get_by_role("button", name="Undo")).to_be_enabled()
    assert len(slow_app.state.editor.images) == 2
    slow.refused()
