"""The page's own interface: JSON below ``/api``, and pictures."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse

from iir_sdk.errors import MaskError
from iir_sdk.pictures.masks import mask_labels
from iir_sdk.pictures.source import size_text
from iir_sdk.web.project import actions
from iir_sdk.web.project.desk import Desk
from iir_sdk.web.project.export import What, exported
from iir_sdk.web.project.state import VerdictKind
from iir_sdk.web.server.bodies import ChangedLabel, ChangedSettings, Decision, NewLabel, NewStroke, OnScreen
from iir_sdk.web.server.events import Mailbox
from iir_sdk.web.server.uploads import MOST_AT_ONCE, add_uploads

Drawn = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a call in a thread for pictures."""
_exporting = ThreadPoolExecutor(1, thread_name_prefix="iir-web-export")
"""One archive at a time: each may take much of the disk."""
Json = dict[str, Any]
_MOST_LISTED = 10_000
_SHAPES_APART = 0.02


def project_router(desk: Desk, stopping: Callable[[], bool]) -> APIRouter:
    """Routes of the project: labels, settings, undo, events."""
    router = APIRouter(prefix="/api")

    @router.get("/project")
    async def project() -> Json:
        return await asyncio.to_thread(desk.overview.project)

    @router.post("/labels")
    async def add_label(body: NewLabel) -> Json:
        return await _done(desk.change(lambda held: actions.new_label(held, body.name, body.color)))

    @router.patch("/labels/{name:path}")
    async def change_label(name: str, body: ChangedLabel) -> Json:
        return await _done(desk.change(lambda held: actions.changed_label(held.state, name, body.name, body.color)))

    @router.delete("/labels/{name:path}")
    async def remove_label(name: str) -> Json:
        return await _done(desk.change(lambda held: actions.removed_label(held.state, name)))

    @router.patch("/settings")
    async def change_settings(body: ChangedSettings) -> Json:
        return await _done(
            desk.change(lambda held: actions.changed_settings(held.state, body.threshold, body.absent_below))
        )

    @router.post("/undo")
    async def undo() -> Json:
        return await _done(desk.undo())

    @router.post("/redo")
    async def redo() -> Json:
        return await _done(desk.redo())

    @router.post("/visible")
    async def visible(body: OnScreen) -> Json:
        desk.look_at(visible=body.ids)
        return {}

    @router.get("/export")
    async def export(format: str, what: What = "accepted") -> Response:
        archive = await asyncio.get_running_loop().run_in_executor(_exporting, lambda: exported(desk, format, what))
        name = f"{desk.shelf.name}-{format}.zip"
        return FileResponse(archive, filename=name, background=BackgroundTask(archive.unlink, missing_ok=True))

    @router.get("/events")
    async def events() -> Response:
        return StreamingResponse(Mailbox(desk, stopping).events(), media_type="text/event-stream")

    return router


def list_router(desk: Desk) -> APIRouter:
    """Routes of pictures' records, and of new pictures."""
    router = APIRouter(prefix="/api/pictures")

    @router.get("")
    async def pictures(
        order: str = "least_sure",
        status: str | None = None,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=0, le=_MOST_LISTED)] = 200,
    ) -> Json:
        return await asyncio.to_thread(desk.overview.records, order, status or None, offset, limit)

    @router.post("")
    async def upload(request: Request) -> Json:
        async with request.form(max_files=MOST_AT_ONCE, max_fields=10) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            return await add_uploads(desk, files)

    @router.get("/{picture}")
    async def record(picture: str) -> Json:
        desk.look_at(shown=picture)
        return await asyncio.to_thread(desk.overview.detailed_record, picture)

    return router


def image_router(desk: Desk, drawn: Drawn) -> APIRouter:
    """Routes of what is seen: pictures and masks."""
    router = APIRouter(prefix="/api/pictures")

    @router.get("/{picture}/thumbnail")
    async def thumbnail(picture: str) -> Response:
        return _jpeg(await drawn(lambda: desk.shelf.thumbnail(picture)))

    @router.get("/{picture}/image")
    async def image(picture: str) -> Response:
        return _jpeg(await drawn(lambda: desk.shelf.shown_jpeg(picture)))

    @router.get("/{picture}/mask")
    async def mask(picture: str, request: Request, size: str = "thumb") -> Response:
        if size not in ("thumb", "full"):
            raise HTTPException(400, f"size={size!r:.100} must be 'thumb' or 'full'.")
        at = await drawn(lambda: (desk.shelf.shown_size if size == "full" else desk.shelf.thumbnail_size)(picture))
        tag = f'"{desk.masks.tag(picture, at)}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = await drawn(lambda: desk.masks.png(picture, at))
        if content is None:
            raise HTTPException(404, "this picture has no mask yet.")
        return Response(content, media_type="image/png", headers=headers)

    return router


def correcting_router(desk: Desk, drawn: Drawn) -> APIRouter:
    """Routes of what is said of pictures: strokes and decisions."""
    router = APIRouter(prefix="/api/pictures")

    @router.post("/{picture}/strokes")
    async def stroke(picture: str, body: NewStroke) -> Json:
        said: Json = {"points": body.points, "radius": body.radius, "box": body.box}
        if body.kind == "mask":
            said["mask"] = await drawn(lambda: kept_mask(desk, picture, body.png))
        return await _done(desk.stroke(picture, body.label, body.kind, **said))

    @router.delete("/{picture}/strokes")
    async def forget(picture: str, label: str | None = None) -> Json:
        return await _done(desk.forget_strokes(picture, label))

    @router.post("/{picture}/accept")
    async def accept(picture: str, body: Decision | None = None) -> Json:
        return await _done(desk.decide(picture, "accepted", None if body is None else body.version))

    @router.post("/{picture}/reject")
    async def reject(picture: str) -> Json:
        return await decided(picture, "rejected")

    @router.post("/{picture}/reset")
    async def reset(picture: str) -> Json:
        return await decided(picture, None)

    async def decided(picture: str, kind: VerdictKind | None) -> Json:
        return await _done(desk.decide(picture, kind))

    return router


async def _done(future: Any) -> Json:
    """What the desk's thread gives, waited for without keeping any other request waiting."""
    answer: Json = await asyncio.wrap_future(future)
    return answer


def kept_mask(desk: Desk, picture: str, png: str) -> str:
    """A mask in base64, of the picture's shape in any size, as a file of the project: its name.

    Raises:
        MaskError: not base64, not a mask, of another shape, empty, or all of the picture.
    """
    try:
        content = base64.b64decode(png.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise MaskError(f"png must be a picture's file in base64 ({error}).") from error
    labels = mask_labels(content).labels
    height, width = desk.shelf.size(picture)
    if abs(labels.shape[0] * width - labels.shape[1] * height) > max(labels.shape) * max(height, width) * _SHAPES_APART:
        raise MaskError(
            f"the mask is {size_text(labels.shape)} and its picture {size_text((height, width))} (height x width): "
            "draw it on the picture as shown."
        )
    if not (labels == 1).any() or not (labels == 0).any():
        raise MaskError("the mask must mark the object, and leave background.")
    return desk.project.write_mask(labels)


def _jpeg(content: bytes) -> Response:
    # The picture's file may be another one tomorrow.
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})
