"""Pictures that were dropped in: bounded in number, bytes and pixels, and decoded before they are kept."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from PIL import Image
from starlette.datastructures import UploadFile

from iir_sdk.errors import ImageError, MemoryShortageError
from iir_sdk.pictures.load import load_picture
from iir_sdk.web.project.desk import Desk
from iir_sdk.web.project.pictures import safe_name

MOST_AT_ONCE, MOST_UPLOADS = 500, 20_000
LARGEST = 128 << 20
"""Bytes of one file."""
_LONGEST_NAME = 200


async def add_uploads(desk: Desk, files: list[UploadFile]) -> dict[str, list[dict[str, Any]]]:
    """Keep what is a picture; what is not is told with the reason."""
    added: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for file in files:
        # Shown only: no path is made of it.
        name = "".join(c for c in (file.filename or "picture") if c.isprintable())[-_LONGEST_NAME:]
        try:
            if len(desk.held.uploads) >= MOST_UPLOADS:
                raise ImageError(f"the project holds {MOST_UPLOADS:,} dropped pictures already.")
            content = await file.read(LARGEST + 1)
            suffix = await asyncio.to_thread(checked_suffix, content)
            future = await asyncio.to_thread(desk.add_upload, content, safe_name(name, suffix), name)
            added.append(await asyncio.wrap_future(future))
        except (ImageError, MemoryShortageError) as error:
            refused.append({"name": name, "error": str(error)})
    return {"added": added, "refused": refused}


def checked_suffix(content: bytes) -> str:
    """The suffix of a picture's file; an ImageError where it is none, is damaged or too large."""
    if len(content) > LARGEST:
        raise ImageError(f"the file has more than {LARGEST:,} bytes.")
    load_picture(content, what="the file", page=0)
    with Image.open(io.BytesIO(content)) as image:
        return f".{(image.format or 'picture').lower()}"
