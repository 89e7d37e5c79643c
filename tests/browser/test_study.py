"""A study page in a real browser, answered by mouse and by keyboard, and the analysis of its answers."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from elements_jax.evaluation.study.analysis import analyse
from elements_jax.evaluation.study.answers import Key, read_answers
from elements_jax.evaluation.study.make import make
from tests.browser.conftest import playwright
from tests.helpers.scene_results import write_scene_results

expect = playwright.expect


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key]:
    """A study of six pairs and two checks per form, and its key."""
    folder = tmp_path_factory.mktemp("study")
    write_scene_results(folder / "results", 2)
    settings = {"ours": "ours", "baselines": ("pixels", "sdedit-0.5"), "length": 40, "checks": 2, "seed": 0}
    return folder / "out" / "page", make(folder / "results", folder / "out", **settings, finish="Send it to Ada.")


@pytest.fixture(scope="module")
def address(study: tuple[Path, Key]) -> Iterator[str]:
    """A static server of only the page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=study[0]))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class Rater:
    """Someone in front of the page, who always prefers ours and passes checks, unless told otherwise."""

    def __init__(self, page: "playwright.Page", key: Key, form: int):
        self.page = page
        self.key = key
        self.form = form
        self.problems: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        page.on("request", lambda request: self.requests.append(request.url))

    def start(self, url: str, worker: str | None = None) -> None:
        self.page.goto(url)
        expect(self.page.get_by_role("heading")).to_have_text("Which edit is better?")
        if worker is not None:
            self.page.get_by_label("Your ID").fill(worker)
        self.page.get_by_role("button", name="Start").click()

    def ready(self, number: int) -> None:
        """Wait until the pair with this number, from 1, can be answered."""
        expect(self.page.locator("#position")).to_have_text(f"{number} of 8")
        expect(self.page.locator("#pictures")).to_have_attribute("aria-busy", "false")
        self.page.wait_for_timeout(260)  # a pair must be seen for a quarter of a second

    def side(self, number: int) -> str:
        """Return the side of ours in a pair, or the correct side of a check."""
        pair = self.key.pairs[self.key.forms[self.form - 1][number - 1]]
        return pair.check or ("left" if pair.left == "ours" else "right")

    def click(self, number: int) -> None:
        self.ready(number)
        self.page.get_by_role("button", name={"left": "A is better", "right": "B is better"}[self.side(number)]).click()

    def press(self, number: int) -> None:
        self.ready(number)
        self.page.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight"}[self.side(number)])

    def download(self, folder: Path) -> Path:
        expect(self.page.get_by_role("heading")).to_have_text("Thank you")
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Download answers").click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        assert json.loads(self.page.get_by_role("textbox").input_value()) == json.loads(path.read_text())
        assert self.problems == []
        return path


def test_analyses_a_form_by_mouse_and_one_by_keyboard(study, address, browser, tmp_path):
    folder, key = study
    contexts = [browser.new_context(accept_downloads=True) for _ in range(2)]

    mouse = Rater(contexts[0].new_page(), key, 1)
    mouse.start(f"{address}?form=1", worker="worker 1/é")
    for number in range(1, 4):
        mouse.click(number)
    mouse.ready(4)
    mouse.page.reload()
    for number in range(4, 9):
        mouse.click(number)
    expect(mouse.page.get_by_text("Send it to Ada.")).to_be_visible()
    first = mouse.download(tmp_path)
    assert first.name == f"answers-{key.study}-1-worker_1_.json"
    assert all(url.startswith((address, "data:", "blob:")) for url in mouse.requests), mouse.requests

    keyboard = Rater(contexts[1].new_page(), key, 2)
    keyboard.start(f"{folder.as_uri()}/index.html?form=2&worker=P2")
    for number in range(1, 9):
        keyboard.press(number)
    second = keyboard.download(tmp_path)
    assert all(url.startswith((folder.as_uri(), "data:", "blob:")) for url in keyboard.requests), keyboard.requests

    answers = read_answers([first, second], key)
    assert [sheet.worker for sheet in answers] == ["worker 1/é", "P2"]
    for sheet in answers:
        assert [answer.pair for answer in sheet.answers] == list(key.forms[sheet.form - 1])
        assert all(0.25 <= answer.seconds < 30 for answer in sheet.answers)
        assert sheet.started < sheet.finished
    result = analyse(key, answers)
    assert (result.raters, result.judgments, result.excluded) == (2, 12, ())
    assert [each.share for each in result.preferences if each.kind == "all"] == [1, 1]
    for context in contexts:
        context.close()


def test_answers_can_be_undone_and_one_key_answers_one_pair(study, page, tmp_path):
    folder, key = study
    rater = Rater(page, key, 3)
    rater.start(f"{folder.as_uri()}/index.html?form=3")
    rater.ready(1)
    expect(page.get_by_role("button", name="Back")).to_be_hidden()
    wrong = {"left": "ArrowRight", "right": "ArrowLeft"}[rater.side(1)]
    page.keyboard.down(wrong)
    for _ in range(5):
        page.keyboard.down(wrong)  # held: repeats
    page.keyboard.up(wrong)
    page.keyboard.press(wrong)  # while the choice is marked
    rater.ready(2)
    page.get_by_role("button", name="Back").click()
    for number in range(1, 9):
        rater.press(number)
    expect(page.get_by_role("heading")).to_have_text("Thank you")
    page.get_by_role("button", name="Back to the last pair").click()
    rater.press(8)
    (sheet,) = read_answers([rater.download(tmp_path)], key)
    assert [answer.choice for answer in sheet.answers] == [rater.side(number) for number in range(1, 9)]


def test_done_answers_are_kept_until_somebody_else_begins(study, page):
    folder, key = study
    rater = Rater(page, key, 1)
    rater.start(f"{folder.as_uri()}/index.html?form=1")
    for number in range(1, 9):
        rater.press(number)
    page.reload()
    expect(page.get_by_role("heading")).to_have_text("Thank you")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Begin again").click()
    expect(page.get_by_role("heading")).to_have_text("Thank you")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Begin again").click()
    expect(page.get_by_role("heading")).to_have_text("Which edit is better?")
    page.get_by_role("button", name="Start").click()
    rater.ready(1)
    assert rater.problems == []


def test_two_workers_in_one_browser_have_separate_sheets(study, page):
    folder, key = study
    rater = Rater(page, key, 1)
    rater.start(f"{folder.as_uri()}/index.html?form=1&worker=one")
    rater.press(1)
    rater.ready(2)
    page.goto(f"{folder.as_uri()}/index.html?form=1&worker=two")
    expect(page.get_by_label("Your ID")).to_have_value("two")
    page.goto(f"{folder.as_uri()}/index.html?form=1&worker=one")
    rater.ready(2)


def test_draws_and_keeps_a_form_and_rejects_an_unknown_one(study, page):
    folder, _ = study
    page.goto(f"{folder.as_uri()}/index.html")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#pictures")).to_have_attribute("aria-busy", "false")
    shown = page.locator("#drawing").get_attribute("src"), page.get_by_alt_text("Result A").get_attribute("src")
    page.reload()
    expect(page.locator("#pictures")).to_have_attribute("aria-busy", "false")
    assert shown == (
        page.locator("#drawing").get_attribute("src"),
        page.get_by_alt_text("Result A").get_attribute("src"),
    )
    page.goto(f"{folder.as_uri()}/index.html?form=99")
    expect(page.get_by_role("status")).to_have_text("This study has forms 1 to 4: please check the address.")
    expect(page.get_by_role("button", name="Start")).to_be_hidden()


def test_reports_an_image_that_does_not_load_and_blocks_its_pair(study, page):
    folder, key = study
    page.route("**/pictures/*", lambda route: route.abort())
    page.goto(f"{folder.as_uri()}/index.html?form=1")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status")).to_contain_text("could not be loaded")
    page.keyboard.press("ArrowLeft")
    page.unroute("**/pictures/*")
    page.reload()
    Rater(page, key, 1).press(1)
    expect(page.locator("#position")).to_have_text("2 of 8")


@pytest.mark.parametrize("size", [(1280, 800), (390, 844), (360, 640)])
def test_all_of_a_pair_is_seen_at_once_and_named(study, browser, size):
    folder, key = study
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    rater = Rater(page, key, 1)
    rater.start(f"{folder.as_uri()}/index.html?form=1")
    rater.ready(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for part in (page.locator("#drawing"), page.locator("#left"), page.locator("#right")):
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1]
        assert min(box["width"], box["height"]) >= 44
    instruction = page.locator("#instruction").inner_text()
    expect(page.get_by_alt_text(f"The input with the edit drawn on it: {instruction}")).to_be_visible()
    for name in ("Result A", "Result B"):
        expect(page.get_by_alt_text(name)).to_be_visible()
    page.keyboard.press("Tab")  # from the instruction to the first thing that can be done
    page.keyboard.press("Enter")
    expect(page.locator("#position")).to_have_text("2 of 8")
    context.close()
