"""The application: all routes behind the door."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp

import iir_sdk
from iir_sdk.errors import IirError, OutputError, PictureNotFoundError, ProjectError
from iir_sdk.web import page
from iir_sdk.web.project.desk import Desk
from iir_sdk.web.server.door import Door, Guarded
from iir_sdk.web.server.routes import correcting_router, image_router, list_router, project_router

_STATUS = ((PictureNotFoundError, 404), (ProjectError, 409), (OutputError, 507))
_PAGE_SUFFIXES = (".html", ".js", ".css", ".svg", ".png", ".woff2", ".webmanifest")
_TYPES = {".js": "text/javascript", ".webmanifest": "application/manifest+json"}

# Of their own, so that a grid of thumbnails leaves the other threads, and a processor, alone.
_picture_threads = ThreadPoolExecutor(2, thread_name_prefix="iir-web-picture")


def create_app(
    desk: Desk,
    door: Door,
    mounted: Mapping[str, ASGIApp] | None = None,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """The page and its interface over a project, which stays its owner's to close; and other applications beside it.

    Args:
        desk: the project.
        door: who may enter.
        mounted: applications by the paths they are under, as ``/v1``.
        stopping: whether the server is, whereupon what is sent to listening pages ends.
    """
    # Its pages of documentation load scripts from elsewhere.
    app = FastAPI(title="iir-sdk", version=iir_sdk.__version__, docs_url=None, redoc_url=None)
    for router in (
        project_router(desk, stopping),
        list_router(desk),
        image_router(desk, _drawn),
        correcting_router(desk, _drawn),
    ):
        app.include_router(router, include_in_schema=False)
    for path, other in (mounted or {}).items():
        app.mount(path, other)
    _add_page(app)
    app.add_exception_handler(IirError, _told)
    app.add_exception_handler(HTTPException, _told_in_http)
    app.add_exception_handler(RequestValidationError, _told_of_body)
    app.add_middleware(Guarded, door=door)
    return app


async def _drawn(call: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(_picture_threads, call)


def _add_page(app: FastAPI) -> None:
    """The page's files by their names: what is not one of them is not read, whatever is asked for."""
    root = Path(page.__file__).parent
    files = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.suffix in _PAGE_SUFFIXES}

    @app.get("/{name:path}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        file = files.get(name or "index.html")
        if file is None:
            raise HTTPException(404, "there is no such page.")
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
        return FileResponse(file, media_type=kind, headers={"Cache-Control": "no-cache"})


async def _told(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    return JSONResponse({"error": str(error)}, status)


async def _told_in_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _told_of_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"{place}: {first['msg']}"}, 422)
