"""A page's server in this process, and the browser that opens it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from playwright.sync_api import Browser, Playwright

from iir_sdk.engines.base import Engine
from iir_sdk.web.project.opening import opened_desk
from iir_sdk.web.server.app import create_app
from iir_sdk.web.server.door import Door

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NEEDED = "IIR_NEEDS_BROWSER"
"""Set where a browser must be there: its absence is an error then, and no reason to skip."""


@contextmanager
def served(engine: Engine, folder: Path) -> Iterator[str]:
    """Serve a folder's project until the end; the page's address."""
    desk = opened_desk(engine, folder)
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(desk, Door("127.0.0.1", ""), stopping=lambda: server.should_exit)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        desk.close()


def browser_file(playwright: Playwright) -> str | None:
    """The browser of the distribution, else Playwright's own, else None."""
    installed = next((path for path in map(shutil.which, BROWSERS) if path), None)
    bundled = playwright.chromium.executable_path
    return installed or (bundled if Path(bundled).exists() else None)


def launched(playwright: Playwright) -> Browser | None:
    """A browser without a window, or None where there is none."""
    path = browser_file(playwright)
    if path is None:
        assert not os.environ.get(NEEDED), f"{NEEDED} is set, and there is none of {BROWSERS}"
        return None
    # Chromium's sandbox does not start as root; the pages it opens here are this project's.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=path, args=arguments)
