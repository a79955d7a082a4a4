"""Whether a picture came from a file that keeps pixels only roughly."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

_ALWAYS = ("JPEG", "MPO", "AVIF")
_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")


def is_lossy(image: Image.Image) -> bool:
    """Whether the file that ``image`` was opened from is lossy: JPEG, AVIF, WebP or TIFF where they are.

    Of a WebP whose file is out of reach, whether its brightest value is 128 or more: then nothing is lost by taking it
    for one, but small values beside large ones.
    """
    if image.format == "TIFF":
        return image.info.get("compression") in _IN_TIFF
    if image.format != "WEBP":
        return image.format in _ALWAYS
    kind = _webp_kind(image)
    return bool(np.asarray(image.convert("RGB")).max() >= 128) if kind is None else kind == b"VP8 "


def _webp_kind(image: Image.Image) -> bytes | None:
    """Kind of the first picture's chunk, which PIL does not tell; None where the file cannot be read again."""
    return _kind_of_stream(getattr(image, "fp", None)) or _kind_of_file(getattr(image, "filename", ""))


def _kind_of_stream(stream: BinaryIO | None) -> bytes | None:
    if stream is None or stream.closed or not stream.seekable():
        return None
    at = stream.tell()
    try:
        return _first_kind(stream)
    finally:
        stream.seek(at)


def _kind_of_file(name: str | bytes) -> bytes | None:
    try:
        with Path(os.fsdecode(name)).open("rb") as file:
            return _first_kind(file)
    except OSError:
        # Gone, or never one.
        return None


def _first_kind(file: BinaryIO) -> bytes | None:
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    while len(head := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind in (b"VP8 ", b"VP8L"):
            return bytes(kind)
        # The picture's chunk lies within that of a frame, behind 16 bytes.
        file.seek(16 if kind == b"ANMF" else size + size % 2, os.SEEK_CUR)
    return None
