"""Runs: progress, results, download, continuing from a result, and recovery after a failure."""

import re

import numpy as np
import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from elements_jax.cli.photos import PhotoSegmenter, SegmenterOptions
from elements_jax.editing.script import EditScript
from elements_jax.photograph.edit import edit_photograph
from elements_jax.photograph.file import Photograph
from elements_jax.pipeline.session import EditSession
from tests.browser.driver import BLUE, RED, Driver, file_of, photograph
from tests.editor.conftest import StepByStep, app_of, find_exactly, served
from tests.helpers.models import stage_1_of


def thumbnails(editor: Driver):
    return editor.page.locator("#gallery button")


def run_button(editor: Driver):
    return editor.page.get_by_role("button", name="Run")


@pytest.fixture
def deleted(opened: Driver) -> Driver:
    """The page with a JPEG, in which the square was deleted."""
    opened.upload(name="photo.jpg", quality=95)
    opened.select(20, 20)
    opened.keys("Delete")
    return opened


def test_run_without_edits_says_why_it_is_disabled(editor):
    expect(editor.page.locator("#why")).to_have_text("Open a photo first.")
    editor.upload()
    expect(run_button(editor)).to_be_disabled()
    expect(editor.page.locator("#why")).to_contain_text("Nothing to run yet")
    editor.keys("Control+Enter")
    expect(editor.status).to_contain_text("Nothing to run yet")
    assert editor.sent("/api/jobs") == []
    editor.select(20, 20)
    editor.keys("Delete")
    expect(run_button(editor)).to_be_enabled()


def test_a_run_sends_the_script_and_shows_its_variants(deleted):
    page = deleted.page
    page.get_by_label("Prompt", exact=True).fill("a red square")
    page.get_by_text("More settings").click()
    page.get_by_label("Negative prompt").fill("a blue square")
    page.get_by_label("Sampler").select_option("euler")
    page.get_by_label("Steps").fill("3")
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_label("Lock seed").check()
    page.get_by_label("Variants").fill("2")
    page.get_by_label("Separate guidance for pieces").check()
    page.locator("[name=guidance]").fill("2.5")
    page.locator("[name=element_guidance]").fill("4")
    page.get_by_label("Detail").select_option("decoder")
    page.locator("[name=tolerance]").fill("0.25")
    deleted.run(2)
    [job] = deleted.sent("/api/jobs")
    assert job["variants"] == 2
    [edit] = job["script"].pop("edits")
    assert edit["edit"] == "delete"
    assert job["script"] == {
        "version": 1,
        "prompt": "a red square",
        "negative_prompt": "a blue square",
        "seed": 7,
        "detail": "decoder",
        "tolerance": 0.25,
        "sampling": {"sampler": "euler", "steps": 3, "guidance": 2.5, "element_guidance": 4, "eta": None},
    }
    expect(thumbnails(deleted)).to_have_count(2)
    expect(page.locator("#result-name")).to_have_text("Result 1")
    thumbnails(deleted).nth(1).click()
    expect(page.locator("#result-name")).to_have_text("Result 2")
    expect(thumbnails(deleted).nth(1)).to_have_attribute("aria-pressed", "true")


def test_download_is_the_complete_photograph_of_the_engine(deleted, editing, tmp_path):
    deleted.page.get_by_text("More settings").click()
    deleted.page.get_by_label("Seed", exact=True).fill("3")
    deleted.page.get_by_label("Lock seed").check()
    deleted.run()
    result = deleted.save("Download", tmp_path)
    assert result.name == "photo-edited.jpg"
    script = EditScript.from_fields(deleted.sent("/api/jobs")[0]["script"])
    label = PhotoSegmenter(editing.pipeline.config.elements, SegmenterOptions("grid")).label
    before = Photograph.decode(file_of(photograph(), "photo.jpg", quality=95)["buffer"])
    edited = edit_photograph(editing, before, script, label, find_object=find_exactly)
    assert result.read_bytes() == edited.encode(edited.pixels, "JPEG")
    assert Photograph.load(result).size == (64, 96)


def test_a_drawn_mask_selects_the_same_pixels_on_the_server(opened, tmp_path):
    opened.keys("l")
    opened.drag((16, 16), (32, 16), (32, 32), (16, 32))
    opened.drag((24, 24), (54, 24))
    opened.run()
    result = Photograph.load(opened.save("Download", tmp_path)).pixels
    assert (np.abs(result[20:28, 50:58].astype(int) - RED) < 6).all()
    assert (result[18:30, 18:30, 0] < 200).all(), "the hole is filled with what is around it"
    np.testing.assert_array_equal(result[40:], photograph()[40:])


def test_before_and_after_by_pointer_and_keyboard(deleted):
    deleted.run()
    slider = deleted.page.get_by_label("Before and after")
    slider.fill("100")
    deleted.shows(24, 24, colour=deleted_before(deleted))
    slider.fill("0")
    deleted.until(lambda: deleted.pixel(24, 24)[0] < 200)
    slider.fill("50")
    deleted.drag((48, 40), (72, 40))
    assert int(slider.input_value()) == pytest.approx(75, abs=2)
    deleted.keys("Escape")
    expect(deleted.page.locator("#result-bar")).to_be_hidden()


def deleted_before(editor: Driver) -> tuple[int, ...]:
    encoded = file_of(photograph(), "photo.jpg", quality=95)["buffer"]
    return tuple(int(v) for v in Photograph.decode(encoded).pixels[24, 24])


def test_keys_do_not_change_edits_while_a_result_is_shown(deleted):
    deleted.run()
    deleted.keys("Delete", "ArrowRight", "Control+d")
    deleted.keys("Escape")
    assert len(deleted.edits()) == 1


def test_continue_opens_the_result_as_the_photograph(opened):
    opened.select(20, 20)
    opened.drag((24, 24), (54, 24))
    opened.run()
    opened.page.get_by_role("button", name="Continue from this").click()
    expect(opened.status).to_have_text("Continuing from result 1.")
    expect(opened.page.locator("#said")).to_have_text("photo-edited.png, 96 x 64 px")
    assert opened.edits() == []
    opened.select(50, 24)
    assert opened.box() == pytest.approx((46, 16, 16, 16), abs=2)


def test_a_photograph_with_edits_is_replaced_only_when_asked(deleted):
    asked = []
    deleted.page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    deleted.page.locator("#photo-file").set_input_files(file_of(photograph(BLUE)))
    deleted.until(lambda: asked)
    assert len(deleted.edits()) == 1
    deleted.page.once("dialog", lambda dialog: dialog.accept())
    deleted.upload(photograph(BLUE))
    deleted.shows(20, 20, colour=BLUE)
    assert deleted.edits() == []


def test_leaving_asks_and_a_reload_brings_the_edits_back(opened, address):
    opened.keys("l")
    opened.drag((16, 16), (32, 16), (32, 32), (16, 32))
    opened.drag((24, 24), (54, 24))
    opened.shows(50, 24, colour=RED)
    opened.page.get_by_label("Prompt", exact=True).fill("a shelf")
    opened.stage.focus()
    before, kinds = opened.edits(), []
    opened.page.once("dialog", lambda dialog: (kinds.append(dialog.type), dialog.accept()))
    opened.page.reload()
    expect(opened.status).to_have_text("Restored your edits of photo.png.")
    assert kinds == ["beforeunload"]
    opened.shows(50, 24, colour=RED)
    assert opened.edits() == before
    assert opened.page.get_by_label("Prompt", exact=True).input_value() == "a shelf"
    opened.run()


@pytest.fixture
def light(page: Page, editing: EditSession):
    """The page on a server whose model has stage 1 alone; the square was deleted."""
    with served(app_of(EditSession(stage_1_of(editing.pipeline), editing.open, "grid"))) as address:
        editor = Driver(page, address)
        editor.upload()
        editor.select(20, 20)
        editor.keys("Delete")
        yield editor
        editor.check()
        page.close()


def test_a_model_of_stage_1_fills_holes_and_refuses_prompts(light):
    prompt = light.page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_attribute("placeholder", re.compile("takes no prompts"))
    expect(light.page.get_by_role("button", name="Fill with background")).to_be_hidden()
    prompt.fill("a shelf")
    run_button(light).click()
    assert "takes no prompts" in prompt.evaluate("field => field.validationMessage")
    assert light.sent("/api/jobs") == []
    prompt.fill("")
    light.run()
    expect(thumbnails(light)).to_have_count(1)


@pytest.fixture
def slow(page: Page, slow_app: FastAPI, stepping: StepByStep):
    """The page on a server without SAM, whose decoder the test advances; the square was deleted."""
    with served(slow_app) as address:
        editor = Driver(page, address)
        editor.upload()
        editor.click(13, 9)
        expect(editor.status).to_contain_text("Selected 12 x 8 px")
        editor.keys("Delete")
        yield editor
        stepping.go_on(1000)
        editor.check()
        page.close()


def test_progress_is_shown_step_by_step(slow, stepping):
    slow.page.get_by_text("More settings").click()
    slow.page.get_by_label("Steps").fill("3")
    slow.page.get_by_label("Variants").fill("2")
    run_button(slow).click()
    text, bar = slow.page.locator("#progress-text"), slow.page.get_by_role("progressbar")
    expect(text).to_contain_text("Variant 1 of 2: Looking at the surroundings, step 1 of 3")
    expect(run_button(slow)).to_be_disabled()
    stepping.go_on()
    expect(text).to_contain_text("step 2 of 3")
    assert bar.evaluate("bar => [bar.value, bar.max]") == [2, 3]
    stepping.go_on(3)
    expect(text).to_contain_text("Variant 2 of 2: Looking at the surroundings, step 2 of 3")
    expect(thumbnails(slow)).to_have_count(1)
    stepping.go_on(2)
    expect(slow.status).to_have_text("Done: 2 results.")
    expect(bar).to_be_hidden()


def test_cancel_stops_the_run_and_keeps_finished_results(slow, stepping):
    slow.page.get_by_text("More settings").click()
    slow.page.get_by_label("Variants").fill("2")
    run_button(slow).click()
    expect(slow.page.locator("#progress-text")).to_contain_text("step 1")
    stepping.go_on(2)
    expect(thumbnails(slow)).to_have_count(1)
    slow.page.get_by_role("button", name="Cancel").click()
    expect(slow.status).to_have_text("Cancelled after 1 result.")
    assert [r.method for r in slow.requests].count("DELETE") == 1
    expect(run_button(slow)).to_be_enabled()
    assert slow.page.evaluate("document.activeElement.id") == "stage"


def test_a_failed_run_says_why(slow):
    slow.page.get_by_label("Prompt", exact=True).fill("fail")
    run_button(slow).click()
    expect(slow.status).to_contain_text("no memory")
    expect(run_button(slow)).to_be_enabled()


def test_a_closed_page_cancels_its_run(slow, slow_app):
    run_button(slow).click()
    expect(slow.page.locator("#progress-text")).to_contain_text("step 1")
    [job] = slow_app.state.editor.jobs._jobs.values()
    slow.page.once("dialog", lambda dialog: dialog.accept())
    slow.page.goto("about:blank")
    slow.until(lambda: job.status == "cancelled")


def test_without_sam_a_click_selects_a_piece_and_says_why(slow):
    tool = slow.page.get_by_role("button", name="Object", exact=True)
    expect(tool).to_have_attribute("aria-disabled", "true")
    tool.click(force=True)
    expect(slow.status).to_contain_text("--checkpoint")
    slow.click(90, 60)
    assert slow.box() == (84, 56, 12, 8)
    assert slow.sent("/api/objects") == []


def test_a_server_that_lost_the_images_gets_them_again(slow, slow_app, stepping):
    slow_app.state.editor.images._kept.clear()
    stepping.go_on(100)
    slow.run()
    slow.refused()
