"""What a picture or mask may come as: paths, bytes, open files, PIL images, arrays; and what is said of all else."""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from iir_sdk.errors import IirError, ImageError, MaskError, PictureNotFoundError
from iir_sdk.pictures import arrays, load, source
from iir_sdk.pictures.formats import why_unreadable
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask, mask_labels

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 30, 3)).astype(np.uint8)
MASK = np.zeros((24, 30), np.uint8)
MASK[4:12, 6:20] = 255


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def same(found) -> bool:
    return np.array_equal(found.pixels, PIXELS)


class Upload:
    """As web frameworks hand them over: with ``read`` alone."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def read(self) -> bytes:
        return self._stream.read()


class AsyncUpload(Upload):
    async def read(self) -> bytes:
        return self._stream.read()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO, Upload])
def test_a_files_bytes_and_open_files_are_pictures_and_masks(kind):
    assert same(load_picture(kind(png(PIXELS))))
    assert np.array_equal(mask_labels(kind(png(MASK))).labels, MASK > 0)


def test_open_files_are_read_from_their_start_and_left_as_they_were(tmp_path):
    (tmp_path / "a.png").write_bytes(png(PIXELS))
    with (tmp_path / "a.png").open("rb") as file:
        file.seek(5)
        assert same(load_picture(file))
        assert same(load_picture(file))
        assert file.tell() == 5
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(png(PIXELS))
        assert same(load_picture(spooled))
    written = io.BytesIO()
    Image.fromarray(PIXELS).save(written, "PNG")
    assert same(load_picture(written))


def test_files_that_give_no_bytes_name_their_cure(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a picture")
    with (tmp_path / "a.png").open(encoding="utf-8") as text, pytest.raises(ImageError, match="mode 'rb'"):
        load_picture(text)
    with pytest.raises(ImageError, match="closed file"):
        load_picture(text)
    with pytest.raises(MaskError, match=r"await file\.read\(\)"):
        mask_labels(AsyncUpload(b""))
    with pytest.raises(ImageError, match=r"empty \(0 bytes\)"):
        load_picture(io.BytesIO())


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp"])
def test_a_closed_image_says_so(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    with Image.open(path) as image:
        pass
    try:
        image.load()
    except Exception:
        for read, kind in ((load_picture, ImageError), (mask_labels, MaskError)):
            with pytest.raises(kind, match="is closed, as after its 'with' block"):
                read(image)
    with Image.open(path) as image:
        image.load()
    if suffix in ("png", "jpg", "bmp"):
        assert load_picture(image).size == (24, 30)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "empty path"),
        (tempfile.gettempdir(), "is a folder"),
        ("https://example.com/a.jpg", r"is a URL.*urllib\.request\.urlopen"),
        ("s3://bucket/a.jpg", "is a URL"),
        ("gone.png", r"no file at 'gone\.png'"),
        ("a\0b", "no"),
        ("x" * 5000, "no"),
    ],
)
def test_paths_that_lead_nowhere_say_why(path, said):
    for read in (load_picture, mask_labels):
        with pytest.raises(PictureNotFoundError, match=said):
            read(path)


def test_the_cures_of_other_addresses_work(tmp_path, monkeypatch):
    (tmp_path / "a b.png").write_bytes(png(PIXELS))
    url = (tmp_path / "a b.png").as_uri()
    with pytest.raises(PictureNotFoundError, match=r"url2pathname\(urllib\.parse\.urlparse\(url\)\.path\)"):
        load_picture(url)
    assert same(load_picture(urllib.request.url2pathname(urllib.parse.urlparse(url).path)))
    with urllib.request.urlopen(url) as answer:
        assert same(load_picture(answer.read()))
    with urllib.request.urlopen(url) as answer:
        assert same(load_picture(answer))
    data = "data:image/png;base64," + base64.b64encode(png(PIXELS)).decode()
    with pytest.raises(PictureNotFoundError, match=r"base64\.b64decode\(url\.partition\(','\)\[2\]\)"):
        load_picture(data)
    assert same(load_picture(base64.b64decode(data.partition(",")[2])))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PictureNotFoundError, match="expanduser"):
        load_picture("~/a b.png")
    assert same(load_picture(os.path.expanduser("~/a b.png")))  # noqa: PTH111 - as the message says


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow_heif.register_heif_opener"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0", "pillow-heif"),
        (b"\xff\x0a" + b"\0" * 20, "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n", "pillow-jxl-plugin"),
        (b"\0" * 128 + b"DICM", "pydicom"),
        (b"II*\0" + b"\0" * 124 + b"DICM", "pydicom"),
        (b"II*\0\x08\0\0\0\0\0", "tifffile"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\n<!DOCTYPE html><html>403</html>", "web page"),
        (b"\x93NUMPY\1\0", "np.load"),
        (b"PK\3\4", "archive"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\0\0\0\x18ftypisom", "video"),
        (b"v/1\1", "OpenEXR"),
        (b"", "empty"),
        (b"0 0.1 0.1 0.2", "not a picture that PIL can read"),
    ],
)
def test_what_is_no_picture_is_named_by_its_first_bytes(head, said, tmp_path):
    (tmp_path / "a.jpg").write_bytes(head)
    for read in (load_picture, mask_labels):
        for given_as in (tmp_path / "a.jpg", head):
            with pytest.raises(IirError, match=re.escape(said)):
                read(given_as)


def test_avif_is_only_blamed_where_pillow_has_none(monkeypatch):
    head = b"\0\0\0\x1cftypavif\0\0\0\0"
    monkeypatch.setattr(features, "check", lambda name: False)
    assert "pip install -U pillow" in why_unreadable(head)
    monkeypatch.setattr(features, "check", lambda name: True)
    assert "damaged" in why_unreadable(head)


FLOATS = (PIXELS / 255).astype(np.float32)


@pytest.mark.parametrize(
    "given_as",
    [
        PIXELS,
        np.moveaxis(PIXELS, 2, 0),
        FLOATS,
        FLOATS.astype(np.float64),
        FLOATS.astype(np.float16),
        np.moveaxis(FLOATS, 2, 0),
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(FLOATS),
        torch.from_numpy(FLOATS).permute(2, 0, 1),
        torch.from_numpy(FLOATS).permute(2, 0, 1).half(),
    ],
)
def test_arrays_and_tensors_of_one_meaning_are_taken(given_as):
    assert np.abs(load_picture(given_as).pixels.astype(int) - PIXELS).max() <= 1
    grey = np.repeat(PIXELS[..., :1], 3, axis=2)
    for one in (PIXELS[..., 0], PIXELS[..., :1], PIXELS[None, ..., 0], torch.from_numpy(FLOATS[..., 0])):
        assert np.array_equal(load_picture(one).pixels, grey)


SIXTEEN = PIXELS.astype(np.uint16) * 257
NAN = FLOATS.copy()
NAN[0, 0] = np.nan, np.inf, -np.inf


@pytest.mark.parametrize(
    ("wrong", "said", "cure"),
    [
        (PIXELS.astype(np.int64), "a.astype(np.uint8)", lambda a: a.astype(np.uint8)),
        (PIXELS.astype(np.uint16), "a.astype(np.uint8)", lambda a: a.astype(np.uint8)),
        (PIXELS.astype(object), "a.astype(np.uint8)", lambda a: a.astype(np.uint8)),
        (SIXTEEN, "(a / a.max() * 255).astype(np.uint8)", lambda a: (a / a.max() * 255).astype(np.uint8)),
        (PIXELS > 127, "np.uint8(a) * 255", lambda a: np.uint8(a) * 255),
        (PIXELS.astype(np.float64), "divide by 255", lambda a: a / 255),
        (SIXTEEN.astype(np.float32), "divide by its greatest value", lambda a: a / a.max()),
        (NAN, "np.nan_to_num(a, posinf=0, neginf=0)", lambda a: np.nan_to_num(a, posinf=0, neginf=0)),
        (np.dstack([PIXELS, PIXELS[..., :1]]), "a[..., :3]", lambda a: a[..., :3]),
        (PIXELS[None], "a[0]", lambda a: a[0]),
        (np.ma.masked_array(PIXELS, PIXELS > 250), "a.filled(0)", lambda a: a.filled(0)),
        (torch.from_numpy(NAN), "nan_to_num(t", lambda t: torch.nan_to_num(t, posinf=0, neginf=0)),
        (torch.from_numpy(PIXELS).long(), ".to(torch.uint8)", lambda t: t.to(torch.uint8)),
        (torch.from_numpy(PIXELS).float(), "divide by 255", lambda t: t / 255),
        (torch.from_numpy(FLOATS).permute(2, 0, 1)[None], "a[0]", lambda a: a[0]),
        (PIXELS.tolist(), "np.array(picture, np.uint8)", lambda p: np.array(p, np.uint8)),
    ],
)
def test_the_cure_that_is_printed_works(wrong, said, cure):
    with pytest.raises(ImageError, match=re.escape(said)):
        load_picture(wrong)
    found = load_picture(cure(wrong)).pixels.astype(int)
    known = ~np.isnan(NAN).any(2) & np.isfinite(NAN).all(2) if "nan_to_num" in said else np.ones((24, 30), bool)
    expected = (PIXELS > 127) * 255 if "np.uint8(a)" in said else np.where(PIXELS > 250, 0, PIXELS)
    if "filled" not in said and "np.uint8(a)" not in said:
        expected = PIXELS
    assert np.abs(found - expected)[known].max() <= 1


def test_normalised_pictures_are_named():
    with pytest.raises(ImageError, match="looks normalised"):
        load_picture((torch.from_numpy(FLOATS).permute(2, 0, 1) - 0.5) / 0.25)


@pytest.mark.parametrize(
    ("wrong", "said", "cure"),
    [
        (MASK.tolist(), "np.array(mask)", np.array),
        (np.ma.masked_array(MASK, MASK > 0), "mask.filled(0)", lambda m: m.filled(255)),
        (np.stack([MASK, MASK]), "mask[0]", lambda m: m[0]),
    ],
)
def test_the_cure_of_a_mask_works(wrong, said, cure):
    with pytest.raises(MaskError, match=re.escape(said)):
        mask_labels(wrong)
    assert mask_labels(cure(wrong)).labels.shape == (24, 30)


@pytest.mark.parametrize("mask", [MASK[None, None], np.dstack([MASK] * 3), np.dstack([MASK] * 3 + [MASK * 0 + 255])])
def test_masks_with_further_axes_of_one_meaning_are_taken(mask):
    assert np.array_equal(mask_labels(mask).labels, MASK > 0)


def test_the_way_out_of_too_many_pixels_works(tmp_path, monkeypatch):
    for module in (source, arrays):
        monkeypatch.setattr(module, "MAX_PIXELS", 500)
    monkeypatch.setattr("iir_sdk.pictures.mask_values.MAX_PIXELS", 500)
    path, drawn = tmp_path / "large.png", tmp_path / "mask.png"
    path.write_bytes(png(PIXELS))
    drawn.write_bytes(png(MASK))
    with pytest.raises(ImageError, match=r"image\.thumbnail.*crop"):
        load_picture(path)
    image = Image.open(path)
    image.thumbnail((20, 20))
    picture = load_picture(image)
    with pytest.raises(MaskError, match=r"image\.resize.*NEAREST"):
        load_mask(drawn, picture)
    assert load_mask(Image.open(drawn).resize(image.size, Image.Resampling.NEAREST), picture).any()
    with pytest.raises(ImageError, match=r"a\[::2, ::2\]"):
        load_picture(PIXELS)
    assert load_picture(PIXELS[::2, ::2]).size == (12, 15)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"MAX_IMAGE_PIXELS = None"):
        load_picture(path)


PICTURE = load.Picture(np.zeros((12, 10, 3), np.uint8))
FORMATS = [("PNG", mode) for mode in ("RGB", "P", "RGBA", "I;16")] + [("GIF", "P"), ("JPEG", "L"), ("TIFF", "F")]
FORMATS += [(kind, "RGB") for kind in ("JPEG", "GIF", "BMP", "WEBP", "TIFF")]


def encoded(kind: str, mode: str) -> bytes:
    stream = io.BytesIO()
    grey = Image.fromarray((np.arange(120).reshape(12, 10) * 500).astype(np.uint16))
    (grey if mode == "I;16" else Image.fromarray(PIXELS[:12, :10]).convert(mode)).save(stream, kind)
    return stream.getvalue()


VALID = [encoded(*each) for each in FORMATS] + [png(MASK[:12, :10])]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_any_way_are_a_picture_or_an_error(data, tmp_path_factory):
    def file(content: bytes) -> Path:
        path = tmp_path_factory.getbasetemp() / "fuzzed"
        path.write_bytes(content)
        return path

    content = bytearray(data.draw(st.one_of(st.binary(max_size=200), st.sampled_from(VALID))))
    for _ in range(data.draw(st.integers(0, 6))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    how = data.draw(st.sampled_from([file, file, bytes, bytearray, memoryview, io.BytesIO, Upload]))
    page = data.draw(st.sampled_from([None, 0, 1]))
    value = data.draw(st.sampled_from([None, 1, (3, 255)]))
    for read in (
        lambda: load_picture(how(bytes(content)), page=page).pixels,
        lambda: load_mask(how(bytes(content)), PICTURE, page=page, value=value),
    ):
        try:
            assert read().dtype == np.uint8
        except IirError as error:
            assert str(error)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.text(max_size=30), st.none(), st.integers(), st.floats(), st.lists(st.integers(), max_size=3)),
    st.sampled_from([str, Path, None]),
)
def test_anything_else_is_an_error(given_as, wrap):
    if wrap is not None and isinstance(given_as, str):
        given_as = wrap(given_as)
    for read in (load_picture, mask_labels):
        with pytest.raises(IirError):
            read(given_as)
