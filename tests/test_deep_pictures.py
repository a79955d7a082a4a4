"""Pictures of 16 bits and of floats: a range that odd pixels cannot spoil, grey and colour alike."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, TiffImagePlugin

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import ImageError
from iir_sdk.pictures.deep import stretched
from iir_sdk.pictures.load import load_picture
from tests.lowest_iou import LOWEST_IOU

COINS = next(job for job in read_jobs() if job.name == "coins")
COLOUR = load_picture(COINS.query).pixels
GREY = np.asarray(Image.open(COINS.query).convert("L"))


def png16(pixels: np.ndarray) -> bytes:
    """``(H, W, C)`` uint16 as PNG: two channels are grey and alpha."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(pixels: np.ndarray, order: str = "<", extra: tuple[int, ...] = (), planar: int = 1) -> bytes:
    """``(H, W, C)`` uint16 as an uncompressed TIFF of one strip."""
    height, width, channels = pixels.shape
    stored = pixels if planar == 1 else np.moveaxis(pixels, 2, 0)
    content = stored.astype(f"{order}u2").tobytes()
    tags = {256: [width], 257: [height], 258: [16] * channels, 259: [1], 262: [2], 277: [channels], 278: [height]}
    strip = len(content) // (1 if planar == 1 else channels)
    tags |= {284: [planar], 273: [8 + i * strip for i in range(len(content) // strip)]}
    tags |= {279: [strip] * len(tags[273])} | ({338: list(extra)} if extra else {})
    directory, beyond = b"", b""
    start = 8 + len(content)
    after = start + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        directory += struct.pack(f"{order}HHI", tag, 4, len(values))
        directory += packed if len(values) == 1 else struct.pack(f"{order}I", after + len(beyond))
        beyond += packed if len(values) > 1 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + content + struct.pack(f"{order}H", len(tags)) + directory + struct.pack(f"{order}I", 0) + beyond


def tiff(values: np.ndarray, nodata: str | None = None) -> bytes:
    stream, tags = io.BytesIO(), TiffImagePlugin.ImageFileDirectory_v2()
    if nodata is not None:
        tags[42113], tags.tagtype[42113] = nodata, 2
    Image.fromarray(values).save(stream, "TIFF", tiffinfo=tags)
    return stream.getvalue()


def iou_of(engine, query) -> float:
    segmenter = FewShotSegmenter(engine)
    segmenter.add_support(COINS.support, COINS.support_mask)
    found, truth = segmenter.predict(query).mask, COINS.truth()
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("odd", [-9999, -32768, -3.4028235e38, 1e20, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("share", ["corner", "half"])
def test_no_data_does_not_take_the_range(odd, share, embedded):
    values = GREY.astype(np.float32) * 3 + 1000
    expected = load_picture(tiff(values)).pixels
    values[:8, :8] = odd
    if share == "half":
        values[: len(values) // 2] = odd
    found = load_picture(tiff(values)).pixels
    left = np.zeros(GREY.shape, bool)
    left[len(left) // 2 + 1 :] = True
    assert np.abs(found.astype(int) - expected)[left].mean() < 5
    assert (found[:8, :8] == 0).all()
    if share == "corner":
        assert iou_of(embedded.engine, tiff(values)) >= LOWEST_IOU["coins"]


@pytest.mark.parametrize("scale", [1, 4, 16, 257])
def test_a_hot_pixel_does_not_take_the_range(scale, embedded):
    values = GREY.astype(np.uint16) * scale
    values[0, 0] = 65535
    assert iou_of(embedded.engine, tiff(values)) >= LOWEST_IOU["coins"]
    assert len(np.unique(load_picture(tiff(values)).pixels)) > 150


def test_gdals_tag_is_honoured():
    values = GREY.astype(np.float32) + 100
    values[:100] = 60
    plain, told = load_picture(tiff(values)).pixels, load_picture(tiff(values, nodata="60")).pixels
    assert plain[100:].min() > 30
    assert told[100:].min() == 0
    assert (told[:100] == 0).all()
    assert np.array_equal(load_picture(tiff(values, nodata="none")).pixels, plain)
    least = np.full_like(values, -3.4028235e38)
    least[200:] = values[200:]
    assert np.array_equal(
        load_picture(tiff(least, nodata="-3.4028234663852886e+38")).pixels, load_picture(tiff(least)).pixels
    )


@pytest.mark.parametrize("scale", [16, 257])
@pytest.mark.parametrize("kind", ["png", "png with alpha", "tiff", "tiff, big endian", "tiff with a fourth band"])
def test_colour_is_read_like_grey(kind, scale, embedded):
    pixels = COLOUR.astype(np.uint16) * scale
    four = np.dstack([pixels, np.full(pixels.shape[:2], 65535, np.uint16)])
    content = {
        "png": lambda: png16(pixels),
        "png with alpha": lambda: png16(four),
        "tiff": lambda: tiff16(pixels),
        "tiff, big endian": lambda: tiff16(pixels, ">"),
        "tiff with a fourth band": lambda: tiff16(four, extra=(0,)),
    }[kind]()
    assert np.array_equal(load_picture(content).pixels, stretched(pixels))
    lazy = Image.open(io.BytesIO(content))
    assert np.array_equal(load_picture(lazy).pixels, stretched(pixels))
    assert np.array_equal(np.asarray(lazy)[..., :3], pixels >> 8), "the caller's image is as it was"
    assert iou_of(embedded.engine, content) >= LOWEST_IOU["coins"]


def test_grey_with_alpha_is_read_in_full():
    grey = GREY.astype(np.uint16) * 16 + 5
    alpha = np.full_like(grey, 65535)
    alpha[:50] = 0
    found = load_picture(png16(np.dstack([grey, alpha]))).pixels
    assert (found[:50] == 255).all()
    assert np.array_equal(found[50:, :, 0], stretched(grey)[50:])


def test_colour_whose_channels_lie_apart_is_refused_with_a_cure():
    content = tiff16(COLOUR.astype(np.uint16) * 16, planar=2)
    with pytest.raises(ImageError, match=r"image has 16-bit channels.*tifffile\.imread"):
        load_picture(content)


def test_floats_in_colour_name_a_cure(tmp_path):
    content = bytearray(tiff16(COLOUR.astype(np.uint16)))
    # Sample format 3 makes them half floats, which PIL does not read.
    content = bytes(content).replace(struct.pack("<HHI", 262, 4, 1), struct.pack("<HHI", 339, 4, 1), 1)
    with pytest.raises(ImageError, match=r"tifffile\.imread"):
        load_picture(content)


def test_plain_ranges_keep_their_order_and_levels():
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (40, 1))
    found = stretched(ramp)
    assert (np.diff(found[0].astype(int)) >= 0).all()
    assert found.min() == 0
    assert found.max() == 255
    assert len(np.unique(found)) > 250


def test_few_levels_are_all_kept():
    for levels in ((0, 1), (0, 60000), (0, 254, 255), (7, 7)):
        values = np.full((50, 50), levels[0], np.uint16)
        for i, level in enumerate(levels):
            values[i * 10 : i * 10 + 10] = level
        assert len(np.unique(stretched(values))) == len(set(levels))
    lone = np.zeros((200, 200), np.float32)
    lone[3, 3] = 5
    assert stretched(lone)[3, 3] == 255


def test_bright_points_on_a_dark_ground_stay_bright(rng):
    stars = rng.integers(100, 200, (300, 300)).astype(np.uint16)
    stars[rng.integers(0, 300, 40), rng.integers(0, 300, 40)] = rng.integers(20_000, 60_000, 40)
    assert (stretched(stars)[stars > 10_000] == 255).all()


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int32, np.uint16]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
        elements={"allow_nan": True, "allow_infinity": True},
    )
)
def test_any_numbers_become_8_bits_in_their_order(values):
    with np.errstate(all="raise", under="ignore"):
        found = stretched(values)
    assert found.shape == values.shape
    assert found.dtype == np.uint8
