"""Serves a project until it is stopped."""

from __future__ import annotations

import secrets
import threading
import warnings
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from iir_sdk.errors import IirWarning
from iir_sdk.web.project.desk import Desk
from iir_sdk.web.server.app import create_app
from iir_sdk.web.server.door import Door, bound, is_loopback, shown_address

_OPEN_AFTER = 0.5
_WAIT_AT_END = 2
"""Seconds that open requests have when the server stops; pages listen for ever."""


def serve(
    desk: Desk,
    *,
    host: str,
    port: int,
    opens: bool,
    say: Callable[[str], object],
    mounted: Mapping[str, ASGIApp] | None = None,
) -> None:
    """Answer requests until interrupted; an OutputError where the port cannot be had.

    Args:
        desk: the project.
        host: to bind to; of one that other machines reach, each request must show a token.
        port: 0 for a free one.
        opens: open the page in the browser.
        say: is told the page's address.
        mounted: other applications, see :func:`iir_sdk.web.server.app.create_app`.
    """
    # Of single pictures: the page says what it needs to.
    warnings.simplefilter("ignore", IirWarning)
    door = Door(host, "" if is_loopback(host) else secrets.token_urlsafe(24))
    listening = bound(host, port)
    address = shown_address(door, listening.getsockname()[1])
    say(f"{address}  (stop with Ctrl+C; all is kept in {desk.project.folder})")
    if opens:
        timer = threading.Timer(_OPEN_AFTER, webbrowser.open, [address])
        timer.daemon = True
        timer.start()
    config = uvicorn.Config(
        create_app(desk, door, mounted, stopping=lambda: server.should_exit),
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_WAIT_AT_END,
    )
    server = uvicorn.Server(config)
    # Told again after the server has stopped in order.
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
