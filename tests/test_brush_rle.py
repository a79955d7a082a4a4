"""Label Studio's run lengths: as its own converter writes and reads them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iir_sdk.errors import DatasetError
from iir_sdk.formats.brush import decode_brush, encode_brush


def decoded_by_bits(rle: list[int]) -> np.ndarray:
    """As label_studio_converter 0.0.59 decodes, a bit at a time."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def read(size: int) -> int:
        nonlocal place
        place += size
        return int(bits[place - size : place], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < count:
        alike = read(1)
        length = read(sizes[read(2)]) + 1
        out += [read(word)] * length if alike else [read(word) for _ in range(length)]
    return np.array(out, np.uint8)


def literal(values: np.ndarray) -> list[int]:
    """Each value by itself, as Label Studio writes soft edges."""
    bits = f"{values.size:032b}00111" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for start in range(0, values.size, 256):
        part = values.ravel()[start : start + 256]
        bits += f"010{len(part) - 1:08b}" + "".join(f"{value:08b}" for value in part)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_masks_come_back(mask):
    rle = encode_brush(mask)
    assert all(type(byte) is int and 0 <= byte <= 255 for byte in rle)
    assert np.array_equal(decode_brush(rle, mask.shape), mask)
    four = decoded_by_bits(rle).reshape(*mask.shape, 4)
    assert np.array_equal(four, np.repeat(mask[..., None] * np.uint8(255), 4, 2))


def test_runs_of_every_length():
    for length in (1, 2, 3, 4, 5, 64, 65, 16384, 16385, 40000):
        mask = np.zeros((1, length + 3), np.bool_)
        mask[0, 2 : 2 + length] = True
        rle = encode_brush(mask)
        assert np.array_equal(decode_brush(rle, mask.shape), mask)
        if length <= 16385:
            assert np.array_equal(decoded_by_bits(rle)[3::4] > 0, mask[0])


def test_soft_edges_and_colours_as_label_studio_writes_them(rng):
    values = rng.integers(0, 256, (9, 11, 4), np.uint8)
    assert np.array_equal(decode_brush(literal(values), (9, 11)), values[..., 3] >= 128)


def test_what_the_converter_writes():
    # label_studio_converter.brush.mask2rle(np.array([[0, 255, 255], [0, 0, 255]], np.uint8)) of version 0.0.59.
    rle = [0, 0, 0, 24, 57, 27, 252, 96, 19, 255, 206, 1, 31, 248]
    mask = np.array([[0, 1, 1], [0, 0, 1]], np.bool_)
    assert encode_brush(mask) == rle
    assert np.array_equal(decode_brush(rle, (2, 3)), mask)


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ([0, 0, 0, 16], "end before"),
        ("text", "not a list of bytes"),
        ([256] * 20, "not a list of bytes"),
        (encode_brush(np.ones((3, 2), np.bool_)), "of 24 values"),
        (encode_brush(np.ones((2, 2), np.bool_))[:-1], "end before"),
    ],
)
def test_what_cannot_be_read_is_refused(rle, words):
    with pytest.raises(DatasetError, match=words):
        decode_brush(rle, (2, 2))
