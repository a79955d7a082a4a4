"""Whether a picture came from a file that keeps pixels only roughly."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from PIL import Image

_ALWAYS = ("JPEG", "MPO", "AVIF")
_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
_WEBP_PICTURE = re.compile(rb"VP8[ L]")
"""Name of a WebP's first picture, lossy or lossless, which PIL does not tell."""


def is_lossy(image: Image.Image) -> bool:
    """Whether the file that ``image`` was opened from is lossy: JPEG, AVIF, WebP or TIFF where they are.

    A WebP whose file is out of reach counts as lossy.
    """
    if image.format == "TIFF":
        return image.info.get("compression") in _IN_TIFF
    if image.format == "WEBP":
        picture = _WEBP_PICTURE.search(_file_of(image))
        return picture is None or picture[0] == b"VP8 "
    return image.format in _ALWAYS


def _file_of(image: Image.Image) -> bytes:
    """What an image was opened from, nothing where that is gone."""
    with suppress(OSError):
        return Path(os.fsdecode(getattr(image, "filename", ""))).read_bytes()
    stream = getattr(image, "fp", None)
    if stream is None or stream.closed or not stream.seekable():
        return b""
    at = stream.tell()
    stream.seek(0)
    content: bytes = stream.read()
    stream.seek(at)
    return content
