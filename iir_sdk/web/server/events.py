"""What happens, sent to every open page as it does (server-sent events)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from iir_sdk.web.project.desk import Desk

_PING_AFTER = 15.0
"""Seconds of silence after which a page is told that the server is there."""
_LOOK_AFTER = 0.5
"""Seconds after which a stopping server is noticed."""


class Mailbox:
    """Events for one page; of several about the same thing that were not sent yet, the latest counts.

    A page that does not listen thus costs no more than one event a picture. ``stopping`` says whether the server is.
    """

    def __init__(self, desk: Desk, stopping: Callable[[], bool]) -> None:
        self._desk, self._loop, self._stopping = desk, asyncio.get_running_loop(), stopping
        self._waiting: dict[tuple[str, str], dict[str, Any]] = {}
        self._arrived = asyncio.Event()

    def _post(self, kind: str, content: dict[str, Any]) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._put, kind, content)
        except RuntimeError:
            # The loop was closed: the server is stopping.
            return

    def _put(self, kind: str, content: dict[str, Any]) -> None:
        key = (kind, str(content.get("id", "")))
        self._waiting.pop(key, None)
        self._waiting[key] = content
        self._arrived.set()

    async def events(self) -> AsyncIterator[str]:
        """The project as it is, then what happens, until the server stops."""
        stop = self._desk.listen(self._post)
        try:
            yield _event("project", self._desk.overview.project())
            silent = 0.0
            while not self._stopping():
                try:
                    await asyncio.wait_for(self._arrived.wait(), _LOOK_AFTER)
                except asyncio.TimeoutError:
                    silent += _LOOK_AFTER
                    if silent >= _PING_AFTER:
                        silent = 0.0
                        yield ": still here\n\n"
                    continue
                self._arrived.clear()
                waiting, self._waiting = self._waiting, {}
                for (kind, _), content in waiting.items():
                    yield _event(kind, content)
        finally:
            stop()


def _event(kind: str, content: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n"
