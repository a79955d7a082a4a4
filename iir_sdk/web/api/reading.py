"""Reads requests, JSON or forms, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iir_sdk.errors import BusyError, RequestError, RequestTooLargeError
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.problems import answer_to

T = TypeVar("T")

_FIELDS = 32
"""Most parts of a form: more than there are names."""
_FIELD_BYTES = 1 << 20
JSON, FORM = "application/json", "multipart/form-data"


class BodyLimit:
    """Refuses requests of too many bytes: by what they state, and as they come."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > self.most:
            await answer_to(self._too_large())(scope, receive, send)
            return
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self.most:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> RequestTooLargeError:
        return RequestTooLargeError(f"the request is of more than {self.most:,} bytes.")


def is_form(request: Request) -> bool:
    """Whether a request comes as a form; a RequestError where it is neither that nor JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, FORM):
        raise RequestError(f"content-type {kind!r} must be {JSON} or {FORM}.")
    return kind == FORM


async def body_of(request: Request, limits: Limits) -> bytes:
    """A request's body; a BusyError where it does not arrive in time."""
    return await _in_time(request.body(), limits)


async def fields_of(request: Request, limits: Limits) -> dict[str, Any]:
    """The fields of a form: text, bytes of files; lists where a name comes several times.

    Empty ones are left out, as a browser sends those that nobody filled in.
    """
    form = await _in_time(request.form(max_files=_FIELDS, max_fields=_FIELDS, max_part_size=_FIELD_BYTES), limits)
    fields: dict[str, Any] = {}
    try:
        for name in form:
            values = [await v.read() if isinstance(v, UploadFile) else v for v in form.getlist(name)]
            values = [value for value in values if value]
            if values:
                fields[name] = values[0] if len(values) == 1 else values
    finally:
        await form.close()
    return fields


async def _in_time(arriving: Awaitable[T], limits: Limits) -> T:
    try:
        return await asyncio.wait_for(arriving, limits.seconds)
    except asyncio.TimeoutError as error:
        raise BusyError(f"the request did not arrive within {limits.seconds:g} seconds.") from error
