"""Fixtures: a browser, a served folder, a page on it that has logged no error in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.engines.base import Engine

playwright_api = pytest.importorskip("playwright.sync_api", reason="needs pip install 'iir-sdk[test]'")

from playwright.sync_api import Browser, Page, expect  # noqa: E402

from tests.browser.photos import write_photos  # noqa: E402
from tests.browser.serving import launched, served  # noqa: E402

Opened = Callable[..., Page]
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a module, not of the session: while it is open, its thread's event loop is taken."""
    with playwright_api.sync_playwright() as playwright:
        opened = launched(playwright)
        if opened is None:
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        yield opened
        opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight photos of coins."""
    write_photos(tmp_path / "photos", "coins", 8)
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The smaller embedded weights: what a page does with masks is tested, not how good they are."""
    return FewShotSegmenter("iir-lite0", device="cpu").engine


@pytest.fixture
def address(engine: Engine, folder: Path) -> Iterator[str]:
    with served(engine, folder) as where:
        yield where


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Opens a page in a new context (options as Playwright's `new_context` takes them)."""
    with ExitStack() as stack:
        said: list[str] = []

        def opened(address: str, **options: object) -> Page:
            context = browser.new_context(
                **{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
            )
            stack.callback(context.close)
            page = context.new_page()
            page.on("pageerror", lambda error: said.append(str(error)))
            page.set_default_timeout(30_000)
            page.goto(address)
            page.wait_for_selector(".tile")
            return page

        yield opened
        assert not said, said
