"""Writes pictures, of a suffix that PIL can write."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from iir_sdk.atomic_write import check_writable_place, write_atomically
from iir_sdk.errors import OutputError


def check_picture_place(path: str | os.PathLike[str]) -> None:
    """Refuse a place or suffix that :func:`save_picture` cannot write, before any work is done for it.

    Raises:
        OutputError: naming the suffix or the folder.
    """
    suffix = Path(path).suffix.lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise OutputError(f"no picture format is known for suffix {suffix!r}; use .png, .jpg or .webp.")
    check_writable_place(Path(path))


def save_picture(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Write a picture in the format of its suffix.

    Raises:
        OutputError: no format has that suffix, the format cannot hold this picture, or the file cannot be written.
    """
    check_picture_place(path)
    try:
        return write_atomically(path, image.save)
    except (ValueError, LookupError) as error:
        size = f"{image.width} x {image.height}"
        raise OutputError(f"{os.fspath(path)!r} cannot hold a picture of {size}, {image.mode}: {error}.") from error
