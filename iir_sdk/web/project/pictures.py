"""The pictures of a project: by opaque ids, as thumbnails, as shown, and as pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.data.bounded_cache import BoundedCache
from iir_sdk.errors import ImageError, PictureNotFoundError
from iir_sdk.files import is_file, write_atomically
from iir_sdk.pictures.arrays import check_size
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.orientation import orientation_of
from iir_sdk.pictures.source import opened, too_large_cure
from iir_sdk.segmenting.journal import Stamp
from iir_sdk.segmenting.queries import SUFFIXES, Place, named_queries
from iir_sdk.web.project.file import ProjectFolder

THUMBNAIL_SIDE, GUESS_SIDE, SHOWN_SIDE = 256, 512, 2048
_THUMBNAILS, _SHOWN = 64 << 20, 96 << 20
"""Bytes of memory for each kind."""
_LONGEST_STEM = 48
_TURNED = 5
"""From this EXIF orientation on, width and height change places."""


@dataclass(frozen=True)
class PictureFile:
    """A picture of the project.

    Attributes:
        id: opaque, the same whenever the project is opened.
        path: its file.
        name: as shown.
        output: the name of its masks, without a suffix, with ``/`` between folders.
    """

    id: str
    path: Path
    name: str
    output: str


class Shelf:
    """All pictures of a project, in the order of their names; only these files are ever read.

    Args:
        project: keeps thumbnails, and pictures that were dropped in.
        folder: of the user's pictures; None for none.
        places: of these pictures, in it or in folders in it, by absolute path.
        uploads: shown names of pictures that were dropped in, by their files' names.
    """

    def __init__(
        self, project: ProjectFolder, folder: Path | None, places: Mapping[str, Place], uploads: Mapping[str, str]
    ) -> None:
        self.project = project
        self.name = project.folder.stem if folder is None else folder.name
        self.files: dict[str, PictureFile] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._thumbnails: BoundedCache[str, bytes] = BoundedCache(_THUMBNAILS, len)
        self._shown: BoundedCache[str, NDArray[np.uint8]] = BoundedCache(_SHOWN, lambda pixels: int(pixels.nbytes))
        self._jpegs: BoundedCache[str, bytes] = BoundedCache(_THUMBNAILS, len)
        if folder is not None:
            for key, query in zip(places, named_queries(places, {}), strict=True):
                name = Path(key).relative_to(folder).as_posix()
                self._place(PictureFile(_id_of(name), Path(key), _shown_name(name), query.name))
        for file, name in uploads.items():
            self.add_upload(file, name)

    def add_upload(self, file: str, name: str) -> PictureFile:
        """A picture that was dropped in, by the place of its file in the project; ``name`` is shown only."""
        folder, _, own_name = file.partition("/")
        stem = Path(own_name).stem
        taken = {picture.output for picture in self.files.values()}
        output = stem if stem not in taken else f"{stem}-{folder[:8]}"
        return self._place(PictureFile(_id_of(f"\0{file}"), self.project.uploads / file, _shown_name(name), output))

    def _place(self, picture: PictureFile) -> PictureFile:
        self.files[picture.id] = picture
        return picture

    def file(self, picture: str) -> PictureFile:
        """The picture of an id; a PictureNotFoundError where there is none."""
        try:
            return self.files[picture]
        except KeyError:
            raise PictureNotFoundError(f"no picture {picture!r:.100} in this project.") from None

    def size(self, picture: str) -> tuple[int, int]:
        """``(height, width)`` as shown, from the file's first bytes; raises as :func:`load_picture` does."""
        if picture not in self._sizes:
            with opened(self.file(picture).path, "picture", ImageError, 0) as image:
                height, width = image.height, image.width
                check_size((height, width), "picture", too_large_cure(ImageError))
                turned = orientation_of(image) >= _TURNED
            self._sizes[picture] = (width, height) if turned else (height, width)
        return self._sizes[picture]

    def pixels(self, picture: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` RGB at its own size, not kept, while what is shown of it is."""
        pixels = load_picture(self.file(picture).path, what="picture", page=0).pixels
        self._sizes[picture] = (pixels.shape[0], pixels.shape[1])
        if picture not in self._thumbnails:
            self._keep_thumbnail(picture, pixels)
        return pixels

    def shown(self, picture: str) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB, the longest side at most :data:`SHOWN_SIDE`: what users look and paint at."""
        pixels = self._shown.get(picture)
        if pixels is None:
            whole = self.pixels(picture)
            pixels = np.asarray(_within(Image.fromarray(whole), SHOWN_SIDE))
            self._shown.put(picture, pixels)
        return pixels

    def shown_size(self, picture: str) -> tuple[int, int]:
        """``(height, width)`` of :meth:`shown`."""
        return _size_within(self.size(picture), SHOWN_SIDE)

    def thumbnail_size(self, picture: str) -> tuple[int, int]:
        """``(height, width)`` of :meth:`thumbnail`."""
        return _size_within(self.size(picture), THUMBNAIL_SIDE)

    def guess_size(self, picture: str) -> tuple[int, int]:
        """``(height, width)`` that what was predicted for sure is kept at: finer than the network's grid."""
        return _size_within(self.size(picture), GUESS_SIDE)

    def shown_jpeg(self, picture: str) -> bytes:
        """:meth:`shown` as a JPEG."""
        content = self._jpegs.get(picture)
        if content is None:
            content = _jpeg(Image.fromarray(self.shown(picture)), 90)
            self._jpegs.put(picture, content)
        return content

    def thumbnail(self, picture: str) -> bytes:
        """A JPEG, the longest side at most :data:`THUMBNAIL_SIDE`; kept beside the project as well."""
        content = self._thumbnails.get(picture)
        if content is None:
            file = self._thumbnail_file(picture)
            if is_file(file):
                with suppress(OSError):
                    content = file.read_bytes()
                    self._thumbnails.put(picture, content)
        if content is None:
            self.pixels(picture)
            content = self._thumbnails.get(picture)
            assert content is not None
        return content

    def _keep_thumbnail(self, picture: str, pixels: NDArray[np.uint8]) -> None:
        # Every so many pixels of a large one: the rest takes longer than the eye can tell.
        step = max(1, max(pixels.shape[:2]) // (4 * THUMBNAIL_SIDE))
        small = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
        size = _size_within((pixels.shape[0], pixels.shape[1]), THUMBNAIL_SIDE)
        content = _jpeg(small.resize(size[::-1], Image.Resampling.BICUBIC), 85)
        self._thumbnails.put(picture, content)
        with suppress(OSError):
            write_atomically(self._thumbnail_file(picture), lambda beside: beside.write_bytes(content))

    def _thumbnail_file(self, picture: str) -> Path:
        stamp = Stamp.of(str(self.file(picture).path))
        return self.project.thumbnails / f"{picture}-{stamp.size:x}-{stamp.mtime_ns:x}.jpg"


def _id_of(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def _shown_name(name: str) -> str:
    """Bytes that are no UTF-8 as question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def safe_name(name: str, suffix: str) -> str:
    """A file's name of letters, digits and ``-_``, of one from outside; ``suffix`` where it has no usual one."""
    last = Path(name.replace("\\", "/"))
    stem = "".join(c if c.isalnum() or c in "-_ " else "_" for c in last.stem)[:_LONGEST_STEM].strip()
    return f"{stem or 'picture'}{last.suffix.lower() if last.suffix.lower() in SUFFIXES else suffix}"


def _size_within(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _within(image: Image.Image, side: int) -> Image.Image:
    size = _size_within((image.height, image.width), side)
    if size == (image.height, image.width):
        return image
    return image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)


def _jpeg(image: Any, quality: int) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()
