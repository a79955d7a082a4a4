"""Label Studio's run lengths of brushes: of a picture's red, green, blue and alpha bytes, of which alpha is the mask.

The lengths are of the package ``rle-pack`` (thi.ng/umbrella): 32 bits say how many bytes, 5 bits the size of a value
less one, 4 times 4 bits the sizes of lengths less one; then runs: a bit for alike (1) or each by itself (0), 2 bits
for which size, the length less one, and the value or values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError

_CHANNELS = 4
_WORD = 8
_SIZES = (3, 4, 8, 16)
_LONGEST = 1 << _SIZES[-1]


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Of a mask ``(H, W)``: bytes, as Label Studio's results hold them in ``rle``."""
    flat = mask.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    bits = [f"{_CHANNELS * flat.size:032b}", f"{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    begin = 0
    for end in ends.tolist():
        value = f"{255 * int(flat[begin]):08b}"
        length = _CHANNELS * (end - begin)
        for piece in (*[_LONGEST] * (length // _LONGEST), length % _LONGEST):
            if piece:
                which = next(i for i, size in enumerate(_SIZES) if piece <= 1 << size)
                bits.append(f"1{which:02b}{piece - 1:0{_SIZES[which]}b}{value}")
        begin = end
    text = "".join(bits)
    packed = np.packbits(np.frombuffer(text.encode("ascii"), np.uint8) - ord("0"))
    return [int(byte) for byte in packed]


def decode_brush(rle: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask ``(H, W)`` of such bytes: where alpha is half of the scale or more.

    Raises:
        DatasetError: they are no run lengths, or not of a picture of this size.
    """
    height, width = size
    try:
        content = np.frombuffer(bytes(rle), np.uint8)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"brush run lengths are not a list of bytes ({error}); export them again.") from error
    reader = _Bits(np.unpackbits(content))
    count, word = reader.number(32), reader.number(5) + 1
    if count != height * width * _CHANNELS or word != _WORD:
        raise DatasetError(
            f"brush run lengths are of {count} values of {word} bits, but a picture of {height} x {width} (height x "
            f"width) has {height * width * _CHANNELS} of {_WORD}; export them again."
        )
    sizes = [reader.number(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        alike = reader.number(1)
        length = reader.number(sizes[reader.number(2)]) + 1
        if place + length > count:
            raise DatasetError("brush run lengths run beyond their picture; export them again.")
        values[place : place + length] = reader.number(_WORD) if alike else reader.numbers(length)
        place += length
    return values.reshape(height, width, _CHANNELS)[..., 3] >= 128


class _Bits:
    """Numbers of bits, the highest first."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._bits, self._place = bits, 0

    def _next(self, count: int) -> NDArray[np.uint8]:
        taken = self._bits[self._place : self._place + count]
        if len(taken) < count:
            raise DatasetError("brush run lengths end before their picture does; export them again.")
        self._place += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(np.packbits(self._next(size)).tobytes(), "big") >> (-size % 8)

    def numbers(self, count: int) -> NDArray[np.uint8]:
        return np.packbits(self._next(count * _WORD))
