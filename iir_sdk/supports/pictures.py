"""What is kept of a support's picture beside its encoding: the mask that was used, and a small copy to rehearse on."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import ImageError, SupportError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.preprocess import Preprocessing, resized_picture

# Of the demo's queries at 480 pixels: 55 to 112 KB in a millisecond, and masks' IoU changes by 0.004 on average. WebP
# has half the bytes and changes it by 0.006 in 12 ms, without loss it has twice the bytes; features have ten times.
_JPEG = {"quality": 95, "subsampling": 0}


@dataclass(frozen=True)
class PackedMask:
    """A mask at its picture's size, a bit a pixel, compressed: a few kilobytes, 12 at 12 million pixels.

    Attributes:
        size: ``(height, width)``.
        marked: what is the object.
        stated: where anything is known; empty for everywhere.
    """

    size: tuple[int, int]
    marked: bytes
    stated: bytes = b""

    @classmethod
    def of(cls, mask: NDArray[np.bool_], known: NDArray[np.bool_]) -> PackedMask:
        """Of an object ``(H, W)`` and where anything is known."""
        return cls((mask.shape[0], mask.shape[1]), _packed(mask), b"" if known.all() else _packed(known))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool ``(H, W)``, the object.

        Raises:
            SupportError: damaged.
        """
        return _unpacked(self.marked, self.size)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Bool ``(H, W)``, where anything is known; raises as :attr:`mask` does."""
        return _unpacked(self.stated, self.size) if self.stated else np.ones(self.size, np.bool_)


def _packed(mask: NDArray[np.bool_]) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes(), level=1)


def _unpacked(content: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    pixels = size[0] * size[1]
    unpacker = zlib.decompressobj()
    try:
        # No more than there can be, whatever a file says.
        bits = unpacker.decompress(content, (pixels + 7) // 8 + 1)
        mask = np.unpackbits(np.frombuffer(bits, np.uint8))[:pixels].reshape(size)
    except (zlib.error, ValueError) as error:
        raise SupportError(f"the mask kept of a support of {size[0]} x {size[1]} is damaged: {error}.") from error
    return mask.astype(np.bool_)


def small_copy(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> bytes:
    """A picture ``(H, W, 3)`` as the network sees it as a query, as a JPEG."""
    content = io.BytesIO()
    small = resized_picture(pixels, preprocessing.size, preprocessing.interpolation)
    Image.fromarray(small).save(content, "JPEG", **_JPEG)
    return content.getvalue()


def copied_pixels(copy: bytes, preprocessing: Preprocessing, what: str) -> NDArray[np.uint8]:
    """``(size, size, 3)`` of :func:`small_copy`.

    Raises:
        SupportError: damaged, or of another size; naming ``what`` keeps it.
    """
    try:
        pixels = load_picture(copy).pixels
    except ImageError as error:
        raise SupportError(f"{what}: the small copy of its picture is damaged: {error}") from error
    side = preprocessing.size
    if pixels.shape != (side, side, 3):
        raise SupportError(f"{what}: the small copy of its picture is {pixels.shape}, expected {(side, side, 3)}.")
    return pixels
