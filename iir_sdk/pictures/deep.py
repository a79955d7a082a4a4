"""Pictures of more than 8 bits a channel: 16- and 32-bit integers and floats, stretched to 8 bits."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import ImageError
from iir_sdk.pictures.formats import TIFF_CURE

_SHARE = 0.001
"""Darkest and brightest share of a picture that may be clipped."""
_SAMPLE = 1 << 20
"""Most values that the range is read from."""
_FAR, _LEVELS, _HUGE = 10, 16, 1e300
_GDAL_NODATA, _BITS, _PLANAR = 42113, 258, 284
# How PIL unpacks 16-bit colour to its high bytes, and what unpacks the low ones.
_NATIVE, _OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")
_LOW = {"B": "L", "L": "B", "N": _OTHER}
_COLOUR = ("RGB;16", "RGBA;16", "RGBX;16")
_GREY_AND_ALPHA = "LA;16B"


def low_bytes(image: Image.Image, what: str) -> NDArray[np.uint8] | None:
    """``(H, W, 1)`` or ``(H, W, 3)`` low bytes of 16-bit colour, of which PIL gives the high ones; None of any other.

    To be asked before the picture is loaded, or what loads it, as PNG's EXIF does.
    """
    if image.mode.startswith(("I", "F")):
        return None
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) > 8:
        raise ImageError(f"{what} has 16-bit channels that are stored one after another: {TIFF_CURE}")
    # How the file's bytes are unpacked; nothing is left to unpack where it was read before.
    tile = getattr(image, "tile", None)
    arguments: Any = tile[0][3] if tile else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    if not isinstance(raw, str):
        return None
    if raw == _GREY_AND_ALPHA:
        # Four bytes a pixel: high and low of the grey, then of the alpha.
        return _unpacked_as(image, "RGBA")[..., 1:2]
    if raw[:-1] in _COLOUR:
        return _unpacked_as(image, raw[:-1] + _LOW[raw[-1]])[..., :3]
    return None


def deep_values(image: Image.Image, low: NDArray[np.uint8] | None) -> NDArray[Any] | None:
    """``(H, W)`` or ``(H, W, 3)`` numbers of a loaded picture of more than 8 bits; None of any other."""
    if low is not None:
        return np.asarray(image)[..., :3].astype(np.uint16) * 256 + low
    return np.asarray(image) if image.mode.startswith(("I", "F")) else None


def nodata_of(image: Image.Image) -> float | None:
    """The number that GDAL's tag says stands for no data; None without the tag."""
    tags: Any = getattr(image, "tag_v2", {})
    try:
        return float(str(tags[_GDAL_NODATA]).strip("\0 "))
    except (KeyError, ValueError):
        return None


def stretched(values: NDArray[Any], nodata: float | None = None) -> NDArray[np.uint8]:
    """Numbers of any range as 8 bits: from the darkest to the brightest 0.1 % of those that count, all channels alike.

    What counts is finite, not ``nodata``, and not one repeated number far from all others (-9999, 1e20), which stands
    for no data as well. No data becomes black.
    """
    return Stretch.of(values, nodata).as_bytes(values)


@dataclass(frozen=True)
class Stretch:
    """How numbers become 8 bits, see :func:`stretched`.

    Attributes:
        low: becomes 0.
        high: becomes 255; as ``low`` where all becomes 0.
        empty: numbers that stand for no data.
    """

    low: float
    high: float
    empty: tuple[float, ...]

    @classmethod
    def of(cls, values: NDArray[Any], nodata: float | None = None) -> Stretch:
        """By numbers of any shape, as those of a picture or of a small copy of it."""
        empty = () if nodata is None else (float(np.float32(nodata)) if values.dtype == np.float32 else nodata,)
        numbers, counts = _counted(values, empty)
        sample = numbers[counts]
        sample = sample[:: max(1, sample.size // _SAMPLE)]
        lone = _lone_extremes(sample)
        sample = sample[~np.isin(sample, lone)]
        if not sample.size:
            return cls(0, 0, (*empty, *lone))
        low, high = (float(q) for q in np.quantile(sample, (_SHARE, 1 - _SHARE)))
        if high <= low:
            low, high = float(sample.min()), float(sample.max())
        return cls(low, high, (*empty, *lone))

    def as_bytes(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Such numbers as 8 bits, of the same shape."""
        if self.high <= self.low:
            return np.zeros(values.shape, np.uint8)
        numbers, counts = _counted(values, self.empty)
        numbers[~counts] = self.low
        np.clip(numbers, self.low, self.high, out=numbers)
        return np.asarray((numbers - self.low) / (self.high - self.low) * 255 + 0.5).astype(np.uint8)


def _counted(values: NDArray[Any], empty: tuple[float, ...]) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """Numbers as floats, a copy, and which of them are finite and not ``empty``."""
    numbers: NDArray[np.floating[Any]] = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    # Beyond are infinities, and what would become one on the way.
    counts = np.abs(numbers) < (_HUGE if numbers.dtype == np.float64 else np.inf)
    for number in empty:
        counts &= numbers != number
    return numbers, counts


def _lone_extremes(sample: NDArray[np.floating[Any]]) -> list[float]:
    """The least and the greatest value, where it is repeated and further from the rest than ten times their range."""
    lone: list[float] = []
    for extreme in (np.min, np.max):
        rest = sample[~np.isin(sample, lone)]
        if rest.size:
            value = float(extreme(rest))
            others = rest[rest != value]
            # Of a few levels nobody can tell: black, grey and white may be anywhere.
            if rest.size - others.size > 1 and len(np.unique(others)) >= _LEVELS:
                low, high = np.quantile(others, (_SHARE, 1 - _SHARE))
                if high > low and np.abs(others - value).min() > _FAR * (high - low):
                    lone.append(value)
    return lone


def _unpacked_as(image: Any, raw: str) -> NDArray[np.uint8]:
    """The pixels of the same page of the same file, its bytes taken for another raw mode."""
    at = image.fp.tell()
    image.fp.seek(0)
    twin: Any = Image.open(io.BytesIO(image.fp.read()))
    image.fp.seek(at)
    if image.tell():
        twin.seek(image.tell())
    for i, tile in enumerate(twin.tile):
        arguments = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw
        # A tuple with names, or before Pillow 11 without.
        twin.tile[i] = type(tile)._make((*tile[:3], arguments)) if hasattr(tile, "_make") else (*tile[:3], arguments)
    twin.load()
    return np.asarray(twin)
