"""Writes pictures, of a suffix that PIL can write."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO

from PIL import Image

from iir_sdk.errors import OutputError
from iir_sdk.files import check_writable_place, write_atomically


def check_picture_place(path: str | os.PathLike[str]) -> None:
    """Refuse a place or suffix that :func:`save_picture` cannot write by an OutputError, before any work is done."""
    suffix = Path(path).suffix.lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise OutputError(f"no picture format is known for suffix {suffix!r}; use .png, .jpg or .webp.")
    check_writable_place(Path(path))


def save_picture(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Write a picture in the format of its suffix; an OutputError where that is none, or cannot hold it."""
    check_picture_place(path)
    try:
        return write_atomically(path, image.save)
    except (ValueError, LookupError) as error:
        size = f"{image.width} x {image.height}"
        raise OutputError(f"{os.fspath(path)!r} cannot hold a picture of {size}, {image.mode}: {error}.") from error


def write_png(image: Image.Image, file: IO[bytes]) -> None:
    """Write a picture as PNG into an open file; an OutputError where that is not open for bytes, or refuses them."""
    content = io.BytesIO()
    image.save(content, "PNG")
    try:
        file.write(content.getbuffer())
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise OutputError(
            f"cannot write to {file!r:.200} ({error}); pass a path, or a file open for bytes, as open(path, 'wb')."
        ) from error
