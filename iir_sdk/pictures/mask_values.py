"""From whatever a user holds as a mask to one number a pixel, and to what a viewer shows of it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from iir_sdk.errors import MaskError, telling_of_memory
from iir_sdk.pictures.arrays import holds_values
from iir_sdk.pictures.mask_levels import flat_share, shown_labels
from iir_sdk.pictures.orientation import orientation_of
from iir_sdk.pictures.source import (
    MAX_PIXELS,
    ImageSource,
    is_file_source,
    is_tensor,
    opened,
    size_text,
    too_large_cure,
)

_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_ALWAYS_LOSSY = ("JPEG", "MPO", "AVIF")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
_WEBP_PICTURE = re.compile(rb"VP8[ L]")
"""Name of a WebP's first picture, lossy or lossless, which PIL does not tell."""
_FEW_COLOURS, _FLAT_COLOURS = 64, 32
_NEARLY = 8
_DARKEST = 64
"""Brightest pixel of a lossy file that shows an object."""
_SLACK = 1e-3
"""How far arithmetic may leave [0, 1]."""


class MaskValues(NamedTuple):
    """A decoded mask, not yet read."""

    values: NDArray[Any]  # ``(H, W)`` booleans or finite numbers: indices of a palette, levels of a grey picture
    shown: NDArray[np.uint8] | None = None  # ``(H, W)``, how bright a viewer shows it, where that says more
    soft: bool = False  # whether half of ``shown`` and above is the object, whatever the values
    of: str = ""  # what keeps its values from being numbers to choose from; empty where they are
    turned: bool = False  # whether an EXIF orientation of its own was applied


def read_mask_values(source: ImageSource, what: str, page: int | None = None) -> MaskValues:
    """Decode a mask; a MaskError for another kind or shape, one that is not finite, or of several colours.

    A MemoryShortageError where there is too little memory for it.
    """
    with telling_of_memory(what):
        return _read_values(source, what, page)


def _read_values(source: ImageSource, what: str, page: int | None) -> MaskValues:
    if isinstance(source, Image.Image) or is_file_source(source):
        with opened(source, what, MaskError, page, any_single=True) as image:
            return _of_pil(image, what)
    if isinstance(source, np.ndarray):
        return _of_array(source, what)
    if is_tensor(source):
        tensor: Any = source
        if not holds_values(tensor):
            raise MaskError(f"{what} is a sparse tensor, or one on device 'meta'; expected one that holds its values.")
        tensor = tensor.detach().cpu()
        return _of_array((tensor.double() if tensor.is_floating_point() else tensor).numpy(), what)
    cure = ": np.array(mask)" if isinstance(source, (list, tuple)) else ""
    raise MaskError(
        f"{what} is a {type(source).__name__}; expected a path, a file's bytes, a PIL image, an array or a tensor "
        f"(H, W){cure}."
    )


def _of_array(array: NDArray[Any], what: str) -> MaskValues:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise MaskError(f"{what} is an array with masked values; fill them: mask.filled(0), or 255 for unknown.")
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise MaskError(f"{what} holds {values.dtype} values; expected booleans or numbers.")
    while values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = np.asarray(values[0] if values.shape[0] == 1 else values[..., 0])
    if values.ndim == 3 and values.shape[2] in (3, 4) and values.dtype == np.uint8 and values.size:
        return _of_pil(Image.fromarray(np.ascontiguousarray(values)), what)
    if values.ndim != 2:
        several = " Of several masks pass one at a time: mask[0], or mask[..., 0]." if values.ndim == 3 else ""
        raise MaskError(f"{what} has shape {values.shape}; expected (H, W), one value a pixel.{several}")
    _check_pixels((values.shape[0], values.shape[1]), what)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise MaskError(f"{what} holds NaN or infinite values; expected 0 for background and nonzero for the object.")
    if values.dtype.kind == "f" and values.size:
        # Without what resizing and the like leave just below 0 or just above 1.
        low, high = float(values.min()), float(values.max())
        values = values.clip(low if low < -_SLACK else 0, high if high > 1 + _SLACK else 1)
    return MaskValues(values)


def _check_pixels(size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise MaskError(f"{what} is {size_text(size)}, more than {MAX_PIXELS:,} pixels. {too_large_cure(MaskError)}")


def _of_pil(image: Image.Image, what: str) -> MaskValues:
    _check_pixels((image.height, image.width), what)
    # Asked of the file, and so before the picture is turned.
    lossy, turned = _is_lossy(image), orientation_of(image) != 1
    return _of_pixels(ImageOps.exif_transpose(image), lossy, what)._replace(turned=turned)


def _of_pixels(image: Image.Image, lossy: bool, what: str) -> MaskValues:
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.size and alpha.min() < 128:
            return _of_cut_out(image, alpha, what)
    if lossy:
        rgb = np.asarray(image.convert("RGB"))
        # Darker ones may be small numbers, which nothing brings back.
        brightness = _shades(rgb) if rgb.max(initial=0) >= _DARKEST else rgb.max(axis=2)
        return MaskValues(brightness, brightness, soft=True, of="comes from a lossy file (JPEG, ...)")
    if image.mode == "P":
        return _of_palette(image)
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return _of_array(np.asarray(image), what)
    return _of_colours(np.asarray(image.convert("RGB")), what)


def _is_lossy(image: Image.Image) -> bool:
    """Whether the file that ``image`` was opened from is lossy; a WebP whose file is out of reach counts as that."""
    if image.format == "TIFF":
        return image.info.get("compression") in _LOSSY_IN_TIFF
    if image.format == "WEBP":
        picture = _WEBP_PICTURE.search(_file_of(image))
        return picture is None or picture[0] == b"VP8 "
    return image.format in _ALWAYS_LOSSY


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


def _of_cut_out(image: Image.Image, alpha: NDArray[np.uint8], what: str) -> MaskValues:
    """Its object is what alpha shows, black parts included; of flat colours it is classes instead."""
    visible = alpha >= 128
    if image.mode == "P":
        indices = np.asarray(image)
        few = len(np.unique(indices)) <= _FEW_COLOURS
        if few and np.array_equal(indices != 0, visible) and flat_share(indices, visible) > 0.5:
            return _of_palette(image)
    packed = _packed(np.asarray(image.convert("RGBA"))[..., :3])
    colours, counts = np.unique(packed[visible], return_counts=True)
    few = np.sort(counts)[-_FLAT_COLOURS:].sum() > 0.95 * counts.sum()
    if few and (counts > 0.01 * counts.sum()).sum() > 1 and flat_share(packed, visible) > 0.5:
        cure = " If all that is visible is the object: np.array(image.convert('RGBA'))[..., 3] > 127."
        array = "np.array(image.convert('RGBA'))"
        raise MaskError(_several_colours(colours[np.argsort(-counts)], what, array) + cure)
    faint = len(np.unique(alpha)) > 2 or alpha.min() > 0
    return MaskValues(alpha, alpha, soft=faint, of="is a cut-out by transparency")


def _of_palette(image: Image.Image) -> MaskValues:
    """Indices, and what they show where the colours in use are greys, or black and one other."""
    indices = np.asarray(image)
    entries = np.array(image.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    table = np.zeros((256, 3), np.int64)
    table[: len(entries)] = entries[:256]
    used = np.unique(indices)
    colours = table[used]
    if (np.ptp(colours, axis=1) <= _NEARLY).all():
        return MaskValues(indices, table.max(axis=1).astype(np.uint8)[indices])
    if len(used) == 2 and (colours.max(axis=1) <= _NEARLY).any():
        return MaskValues(indices, np.uint8(255) * (table.max(axis=1) > _NEARLY).astype(np.uint8)[indices])
    if len(used) == 2 and len(entries) == 2:
        first, second = (tuple(int(v) for v in colour) for colour in colours)
        names = f"{used[0]} is {first} and {used[1]} is {second}"
        return MaskValues(indices, of=f"has a palette of two colours, neither black: index {names}")
    return MaskValues(indices)


def _of_colours(rgb: NDArray[np.uint8], what: str) -> MaskValues:
    """Of RGB pixels: grey ones as numbers, shades of one colour on black as object, several as what they cannot be."""
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
        return MaskValues(rgb[..., 0])
    packed = _packed(rgb)
    colours, counts = np.unique(packed, return_counts=True)
    marked = colours[colours != 0]
    if len(marked) == 1:
        return MaskValues(packed != 0)
    shades = _shades(rgb)
    labels = shown_labels(shades, what)
    if labels is not None and _is_one_hue(rgb, packed, shades):
        return MaskValues(labels == 1)
    raise MaskError(_several_colours(colours[np.argsort(-counts)], what, "np.array(image)"))


def _shades(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``(H, W)``: how bright pixels are, 255 for the brightest, be it a dark red."""
    brightest = rgb.max(axis=2)
    return np.asarray(brightest * (255 / max(1, int(brightest.max()))) + 0.5).astype(np.uint8)


def _is_one_hue(rgb: NDArray[np.uint8], packed: NDArray[np.uint32], shades: NDArray[np.uint8]) -> bool:
    """Whether all but black is one colour, brighter or darker, but for a few pixels that lossy files leave at edges."""
    seen = shades > 25
    hues = rgb[seen] / rgb[seen].max(axis=1, keepdims=True).astype(np.float32)
    others = np.zeros_like(seen)
    others[seen] = np.abs(hues - np.median(hues, axis=0)).max(axis=1) > 0.25
    return bool(others.sum() <= 0.05 * seen.sum()) and flat_share(packed, others) < 0.25


def _packed(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """``(H, W)``: one number a colour, 0 for black."""
    packed: NDArray[np.uint32] = (rgb.astype(np.uint32) * np.array([65536, 256, 1], np.uint32)).sum(2, dtype=np.uint32)
    return packed


def _several_colours(colours: NDArray[np.uint32], what: str, array: str) -> str:
    """What is wrong with them, the most frequent first, and the cure."""
    marked = colours[colours != 0]
    names = [tuple(int(c) >> shift & 255 for shift in (16, 8, 0)) for c in marked[:4]]
    more = ", ..." if len(marked) > len(names) else ""
    return (
        f"{what} has several colours: {', '.join(map(str, names))}{more}. Of classes in colours pass the object's: "
        f"({array}[..., :3] == {names[-1]}).all(axis=2)."
    )
