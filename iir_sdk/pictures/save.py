"""Writes pictures, of a suffix that PIL can write."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
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


def save_numbers(
    strips: Iterable[NDArray[np.integer[Any]]],
    size: tuple[int, int],
    path: str | os.PathLike[str],
    palette: NDArray[np.uint8] | None = None,
) -> Path:
    """Write a map as PNG a few rows at a time, so that memory does not grow with it, which PIL cannot.

    Args:
        strips: rows ``(n, W)`` from the top down, all uint8, or uint16 for a grey picture of 16 bits.
        size: ``(height, width)`` of all.
        path: the file.
        palette: ``(256, 3)`` RGB of the numbers; None for a grey picture.

    Raises:
        OutputError: it cannot be written.
    """

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            _write_png(file, strips, size, palette)

    return write_atomically(path, write)


def _write_png(
    file: IO[bytes],
    strips: Iterable[NDArray[np.integer[Any]]],
    size: tuple[int, int],
    palette: NDArray[np.uint8] | None,
) -> None:
    file.write(b"\x89PNG\r\n\x1a\n")
    pressed = zlib.compressobj()
    for i, strip in enumerate(strips):
        if i == 0:
            kind = 0 if palette is None else 3
            _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8 * strip.itemsize, kind, 0, 0, 0))
            if palette is not None:
                _write_chunk(file, b"PLTE", palette.tobytes())
        # Each row begins with the number of its filter, 0 for none.
        values = strip.astype(strip.dtype.newbyteorder(">")).view(np.uint8).reshape(len(strip), -1)
        if part := pressed.compress(np.pad(values, ((0, 0), (1, 0))).tobytes()):
            _write_chunk(file, b"IDAT", part)
    _write_chunk(file, b"IDAT", pressed.flush())
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: IO[bytes], kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
