"""From whatever a user holds to an opened PIL image at the wanted page; what goes wrong is one of our errors."""

from __future__ import annotations

import inspect
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from iir_sdk.errors import (
    IirError,
    IirWarning,
    ImageError,
    MaskError,
    PictureNotFoundError,
    is_memory_shortage,
    memory_shortage,
)
from iir_sdk.pictures.formats import HEAD, why_unreadable

if TYPE_CHECKING:
    from torch import Tensor

    FileSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
    ImageSource: TypeAlias = FileSource | Image.Image | NDArray[Any] | Tensor
else:
    FileSource: TypeAlias = Any
    ImageSource: TypeAlias = Any

Kind: TypeAlias = "type[ImageError] | type[MaskError]"

MAX_PIXELS = 80_000_000
"""Largest picture, in pixels (about 9,000 x 9,000)."""

# What PIL's readers raise on damaged files, as fuzzing found and their sources show.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # an error under -W error
)
# A phone's JPEG carries a preview, a drawing program's file its layers, an icon its sizes: none of them is a page.
_NOT_PAGES = ("MPO", "PSD", "ICO", "ICNS")
_SUBFILE_TYPE = 254


def is_file_source(source: object) -> TypeGuard[FileSource]:
    """Whether it is read as a file: a path, a file's bytes, or an open file."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or callable(
        getattr(source, "read", None)
    )


def is_tensor(source: object) -> bool:
    """Whether it is torch's; by name, so that numpy and PIL users never import torch here."""
    return any(c.__module__ == "torch" and c.__name__ == "Tensor" for c in type(source).__mro__)


def size_text(size: tuple[int, ...]) -> str:
    """As ``480 x 640``."""
    return " x ".join(str(side) for side in size)


@contextmanager
def opened(
    source: FileSource | Image.Image, what: str, kind: Kind, page: int | None = None, *, any_single: bool = False
) -> Iterator[Image.Image]:
    """An opened picture at its page; whatever fails while it is read in the block becomes an error of ``kind``.

    But for memory that does not suffice, a MemoryShortageError, which says nothing of the file.
    ``page`` None is the first of several, with a warning, and of a PIL image the one it is at; with ``any_single`` a
    file of one page serves for any.
    """
    given = source if isinstance(source, Image.Image) else None
    try:
        with _as_image(source, what, kind) as image:
            before = image.tell() if given is not None and page is not None else None
            try:
                _turn_to(image, page, what, kind, any_single)
                yield image
            finally:
                if before is not None and image.tell() != before:
                    image.seek(before)
    except IirError:
        raise
    except _BROKEN as error:
        if is_memory_shortage(error):
            raise memory_shortage(what, error) from error
        unread = bool(getattr(given, "tile", None)) and getattr(given, "fp", None) is None
        if given is not None and (unread or isinstance(error, AssertionError) or "closed" in str(error)):
            raise kind(
                f"{what} is a PIL image whose file is closed, as after its 'with' block: use it inside the block, "
                "or call image.load() there; or pass the path."
            ) from error
        if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            raise kind(f"{what}: {error} {too_large_cure(kind)}") from error
        raise kind(f"{what} cannot be decoded ({error}); the file is damaged, save it again.") from error


def too_large_cure(kind: Kind) -> str:
    """What to do about a picture of more than ``MAX_PIXELS``."""
    shrink, windows = "image.thumbnail((8000, 8000))", ""
    if kind is MaskError:
        shrink = "image = image.resize(size of the shrunk picture, Image.Resampling.NEAREST)"
    else:
        windows = (
            " To segment it as it is, in windows: pip install 'iir-sdk[geo]', then iir-sdk segment, segment_folder, or "
            "iir_sdk.segment_large(path, 'masks.tif', segmenter=segmenter)."
        )
    return (
        f"At most {MAX_PIXELS:,} pixels are taken: shrink it (Image.MAX_IMAGE_PIXELS = None; image = Image.open(path); "
        f"{shrink}) and pass the image, or cut it into tiles with image.crop.{windows}"
    )


@contextmanager
def _as_image(source: FileSource | Image.Image, what: str, kind: Kind) -> Iterator[Image.Image]:
    if isinstance(source, Image.Image):
        yield source
        return
    with _stream(source, what, kind) as stream:
        try:
            image = Image.open(stream)
        except UnidentifiedImageError as error:
            stream.seek(0)
            name = f" {os.fspath(source)!r}" if isinstance(source, (str, os.PathLike)) else ""
            raise kind(f"{what}{name} cannot be read: {why_unreadable(stream.read(HEAD))}") from error
        with image:
            yield image


@contextmanager
def _stream(source: FileSource, what: str, kind: Kind) -> Iterator[IO[bytes]]:
    if isinstance(source, (str, os.PathLike)):
        try:
            place = Path(source)
            exists, folder = place.is_file(), place.is_dir()
        except (ValueError, OSError, TypeError) as error:
            raise PictureNotFoundError(f"{what}: {source!r} is not a path ({error}).") from error
        if not exists:
            raise PictureNotFoundError(f"{what}: {_why_missing(os.fspath(source), folder)}")
        try:
            file = place.open("rb")
        except OSError as error:
            raise kind(f"{what}: {os.fspath(source)!r} cannot be opened ({error}).") from error
        with file:
            yield file
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    else:
        yield io.BytesIO(_content(source, what, kind))


def _why_missing(path: str, folder: bool) -> str:
    shown = path if len(path) <= 200 else path[:200] + "..."
    scheme = path.partition(":")[0].lower()
    if not path:
        return "an empty path; pass that of a picture."
    if folder:
        return f"{shown!r} is a folder; pass one file of it at a time, or its files to predict_many."
    if scheme in ("http", "https", "ftp"):
        return f"{shown!r} is a URL, and nothing is downloaded here; pass urllib.request.urlopen(url).read()."
    if scheme == "data":
        return f"{shown[:40]!r} is a data URL; pass its bytes, base64.b64decode(url.partition(',')[2])."
    if scheme == "file":
        return f"{shown!r} is a URL; pass the path in it: urllib.request.url2pathname(urllib.parse.urlparse(url).path)."
    if "://" in path:
        return f"{shown!r} is a URL, and nothing is downloaded here; pass the file's bytes."
    if path.startswith("~"):
        return f"no file at {shown!r}; '~' is no folder here: pass os.path.expanduser(path)."
    return f"no file at {shown!r}."


def _content(file: Any, what: str, kind: Kind) -> bytes:
    """All bytes of an open file, from its start where it can go there; it is left where it was."""
    name = type(file).__name__
    if getattr(file, "closed", False) is True:
        raise kind(f"{what} is a closed file; pass it while it is open, or pass its path or bytes.")
    if inspect.iscoroutinefunction(file.read):
        raise kind(f"{what} is a {name} that is read by await; pass its bytes, await file.read().")
    try:
        seekable = callable(getattr(file, "seek", None)) and callable(getattr(file, "tell", None))
        seekable = seekable and (not hasattr(file, "seekable") or file.seekable())
        before = file.tell() if seekable else 0
        if seekable:
            file.seek(0)
        content = file.read()
        if seekable:
            file.seek(before)
    except Exception as error:
        if is_memory_shortage(error):
            raise memory_shortage(what, error) from error
        raise kind(f"{what} is a {name} that cannot be read ({error}); pass its path or bytes.") from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise kind(f"{what} is a {name} that gives {type(content).__name__}, not bytes; open it in mode 'rb'.")
    return bytes(content)


def _turn_to(image: Image.Image, page: int | None, what: str, kind: Kind, any_single: bool) -> None:
    if page is not None and (isinstance(page, bool) or not isinstance(page, (int, np.integer)) or page < 0):
        raise kind(f"page={page!r} must be an integer of at least 0, the first page.")
    if image.tell() == 0 and page is None and _holds_pages(image):
        warnings.warn(
            f"{what} holds {getattr(image, 'n_frames', 1)} pages or frames; the first is taken. page=0 says that it is "
            "meant, page=1 takes the next.",
            IirWarning,
            stacklevel=2,
        )
    if page is None:
        return
    count = int(getattr(image, "n_frames", 1))
    if page >= count and not (count == 1 and any_single):
        raise kind(f"page={page} does not exist: {what} has {count}, counted from 0.")
    if count > 1:
        image.seek(int(page))


def _holds_pages(image: Image.Image) -> bool:
    """Whether there is a second page or frame that somebody may have meant."""
    if image.format in _NOT_PAGES or not getattr(image, "is_animated", False):
        return False
    if image.format != "TIFF":
        return True
    image.seek(1)
    # Maps carry smaller copies of themselves, and masks of their transparent parts.
    tags: Any = getattr(image, "tag_v2", {})
    full = not int(tags.get(_SUBFILE_TYPE, 0)) & 0b101
    image.seek(0)
    return full
