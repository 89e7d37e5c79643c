"""The page in a real browser, against the real server with a model of a few thousand random parameters."""

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi import FastAPI

from elements_jax.cli.photos import SegmenterOptions, open_editing
from elements_jax.pipeline.session import EditSession
from tests.browser.driver import Driver
from tests.editor.conftest import StepByStep, app_of, served
from tests.helpers.models import write_random_model
from tests.helpers.records import SMALL

playwright = pytest.importorskip("playwright.sync_api", reason="the browser's tests need playwright")
playwright.expect.set_options(timeout=15_000)
jax = pytest.importorskip("jax")

NOTICE = "Random weights: this model paints noise."
# 64 elements of 8 x 8 pixels.
SIZE_64 = replace(SMALL, elements=replace(SMALL.elements, image_size=64, grid=8))


@pytest.fixture(scope="session")
def editing(tmp_path_factory: pytest.TempPathFactory) -> EditSession:
    return open_editing(str(write_random_model(tmp_path_factory.mktemp("model"), SIZE_64)), SegmenterOptions("grid"))


@pytest.fixture(scope="session")
def address(editing: EditSession) -> Iterator[str]:
    """The server's address."""
    app = app_of(editing, notice=NOTICE)
    with served(app) as address:
        yield address


@pytest.fixture
def stepping(editing: EditSession) -> StepByStep:
    """A decoder that advances step by step, when the test says so."""
    return StepByStep(editing)


@pytest.fixture
def slow_app(stepping: StepByStep) -> FastAPI:
    """Its server, also without SAM."""
    stepping.go_on(2)  # to warm up
    return app_of(stepping, points=False)


def launch(started: "playwright.Playwright") -> "playwright.Browser":
    """Launch Chromium: the system's, or playwright's own. Raises playwright's Error if there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync"]
    return started.chromium.launch(executable_path=found, args=options)


@pytest.fixture(scope="session")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        try:
            browser = launch(started)
        except playwright.Error as error:
            pytest.skip(f"no chromium, neither on the path nor by `playwright install chromium`: {error}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "playwright.Browser") -> Iterator["playwright.Page"]:
    """An empty page."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


@pytest.fixture
def editor(page: "playwright.Page", address: str) -> Iterator[Driver]:
    """The editor's open page; at the end it must show no errors that the test did not cause."""
    driver = Driver(page, address)
    yield driver
    driver.check()


@pytest.fixture
def opened(editor: Driver) -> Driver:
    """The page with a photograph: a red square on a slope of greys."""
    editor.upload()
    return editor
