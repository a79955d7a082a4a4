"""Pictures too large for memory, read and written in windows by rasterio, with their place on earth."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import (
    IirError,
    ImageError,
    PictureNotFoundError,
    is_memory_shortage,
    memory_shortage,
    needed_imports,
)
from iir_sdk.files import is_file, write_atomically
from iir_sdk.formats.large import Place, Strips
from iir_sdk.formats.pictures import voc_palette
from iir_sdk.pictures.deep import Stretch

_CURE = "large pictures are read in windows by rasterio; run: pip install 'iir-sdk[geo]'"
_OVERVIEW_SIDE = 2048
_CACHE = 128 << 20
"""Of decoded blocks, for all open files; GDAL's own default grows with the machine."""
_ORIENTATION = "EXIF_Orientation"
_BLOCK = 256
"""Side of a written file's blocks."""


class Raster:
    """An open file, RGB whatever it holds: grey, colours by number, more than 8 bits, or more than three bands.

    Attributes:
        file: rasterio's.
    """

    def __init__(self, file: Any, what: str) -> None:
        self.file, self._what = file, what
        if file.tags().get(_ORIENTATION, "1") not in ("0", "1"):
            raise ImageError(
                f"{what} is shown turned, by EXIF orientation {file.tags()[_ORIENTATION]}, and windows are not. Save "
                "it as shown: Image.MAX_IMAGE_PIXELS = None; ImageOps.exif_transpose(Image.open(path)).save(other)."
            )
        interpreted = [colour.name for colour in file.colorinterp]
        colours = [interpreted.index(name) + 1 for name in ("red", "green", "blue") if name in interpreted]
        if len(colours) < 3:
            colours = [1, 2, 3] if file.count >= 3 else [1]
        self._bands = colours
        self._alpha = interpreted.index("alpha") + 1 if "alpha" in interpreted else None
        self._palette = _palette(file) if interpreted[0] == "palette" else None
        if np.dtype(file.dtypes[0]).kind not in "uif":
            raise ImageError(f"{what} holds {file.dtypes[0]}; expected whole numbers or floats.")

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.file.height, self.file.width

    def window(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB of these rows and columns.

        Raises:
            ImageError: the file is damaged there.
        """
        from rasterio.windows import Window

        place = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        return self._rgb(window=place)

    def overview(self) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB of all of it, at most 2048 pixels a side."""
        return self._overview

    @cached_property
    def _overview(self) -> NDArray[np.uint8]:
        return self._rgb(out_side=_OVERVIEW_SIDE)

    @cached_property
    def _stretch(self) -> Stretch | None:
        """Made of a look at all of the file, once pixels are read: who asks for its size alone need not wait."""
        if self.file.dtypes[0] == "uint8":
            return None
        return Stretch.of(self._numbers(out_side=_OVERVIEW_SIDE), self.file.nodata)

    @property
    def place(self) -> Place:
        """Where it lies."""
        return Place(self.file.crs, self.file.transform)

    def _rgb(self, **where: Any) -> NDArray[np.uint8]:
        numbers = self._numbers(**where)
        if self._palette is not None:
            return np.asarray(self._palette[numbers[..., 0]])
        pixels = numbers if self._stretch is None else self._stretch.as_bytes(numbers)
        pixels = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels
        if self._alpha is not None and self._stretch is None:
            pixels = _on_white(pixels, self._read([self._alpha], **where))
        return np.ascontiguousarray(pixels)

    def _numbers(self, **where: Any) -> NDArray[Any]:
        return self._read(self._bands, **where)

    def _read(self, bands: list[int], *, out_side: int | None = None, **where: Any) -> NDArray[Any]:
        """``(h, w, bands)``."""
        import rasterio

        if out_side is not None:
            scale = min(1, out_side / max(self.size))
            height, width = (max(1, round(length * scale)) for length in self.size)
            averaged = rasterio.enums.Resampling.nearest if self._palette is not None else None
            where |= {"out_shape": (len(bands), height, width)}
            where |= {"resampling": averaged or rasterio.enums.Resampling.average}
        try:
            return np.asarray(np.moveaxis(self.file.read(bands, **where), 0, -1))
        except rasterio.errors.RasterioError as error:
            if is_memory_shortage(error):
                raise memory_shortage(self._what, error) from error
            raise ImageError(
                f"{self._what} cannot be decoded ({error}); the file is damaged, save it again."
            ) from error


@contextmanager
def opened_raster(path: str | os.PathLike[str], *, what: str = "picture") -> Iterator[Raster]:
    """A picture's file, whatever GDAL reads, open in the block; memory stays that of windows.

    Raises:
        PictureNotFoundError: there is none.
        ImageError: it is no picture, or damaged.
        MissingDependencyError: rasterio is not installed.
    """
    with needed_imports(_CURE):
        import rasterio
    if not is_file(path):
        raise PictureNotFoundError(f"{what}: no file at {os.fspath(path)!r}.")
    with rasterio.Env(GDAL_CACHEMAX=_CACHE), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            file = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise ImageError(f"{what} {os.fspath(path)!r} cannot be read: {error}.") from error
        with file:
            if not file.count:
                raise ImageError(f"{what} {os.fspath(path)!r} holds several pictures; extract the one that is meant.")
            yield Raster(file, f"{what} {os.fspath(path)!r}")


def _palette(file: Any) -> NDArray[np.uint8]:
    """``(256, 3)`` or more: the colours of its numbers."""
    colours = np.zeros((1 + np.iinfo(file.dtypes[0]).max, 3), np.uint8)
    for number, colour in file.colormap(1).items():
        colours[number] = colour[:3]
    return colours


def _on_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Transparency ``(h, w, 1)`` shown on white."""
    if alpha.min() == 255:
        return pixels
    shares = alpha.astype(np.uint16)
    return ((pixels * shares + 255 * (255 - shares) + 127) // 255).astype(np.uint8)


def pixels_of(path: str | os.PathLike[str]) -> int:
    """How many a file has that GDAL reads; 0 of one that it does not, and without rasterio."""
    try:
        with opened_raster(path) as raster:
            return math.prod(raster.size)
    except IirError:
        return 0


def write_numbers(
    path: str | os.PathLike[str], rows: Strips, size: tuple[int, int], labels: Sequence[str], place: Place
) -> Path:
    """Write labels' numbers as a tiled TIFF of ``size`` (height, width) that knows its place, the labels and colours.

    An OutputError where it cannot be written.
    """
    import rasterio

    height, width = size
    form = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": str(np.min_scalar_type(len(labels))),
        "crs": place.crs,
        "transform": place.transform,
        "compress": "deflate",
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "BIGTIFF": "IF_SAFER",
    }

    def write(beside: Path) -> None:
        with rasterio.open(beside, "w", **form) as file:
            for strip, numbers in _of_blocks(rows, height):
                file.write(numbers, 1, window=((strip.start, strip.stop), (0, width)))
            file.update_tags(1, **{f"label_{i + 1}": label for i, label in enumerate(labels)})
            if len(labels) < 256:
                file.write_colormap(1, dict(enumerate(map(tuple, voc_palette().tolist()))))

    return write_atomically(path, write)


def _of_blocks(rows: Strips, height: int) -> Strips:
    """The same in whole rows of the file's blocks, so that each is compressed once."""
    waiting: list[NDArray[np.integer[Any]]] = []
    first = 0
    for strip, numbers in rows:
        waiting.append(numbers)
        count = strip.stop - first
        if count >= _BLOCK or strip.stop == height:
            joined = np.concatenate(waiting)
            whole = count if strip.stop == height else count - count % _BLOCK
            yield slice(first, first + whole), joined[:whole]
            waiting, first = [joined[whole:]], first + whole
