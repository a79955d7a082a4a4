"""The door for pictures: arbitrary arrays and bytes give a picture or an IirError, nothing else."""

from __future__ import annotations

import gc
import io
import os
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFilter, features

from iir_sdk.errors import IirError, ImageError, MaskError, PictureNotFoundError
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.pictures.masks import load_mask, mask_labels
from iir_sdk.pictures.orientation import frame_of
from iir_sdk.pictures.source import MAX_PIXELS

DTYPES = st.sampled_from(["u1", "i2", "i8", "f4", "f8", "?", "c8", "O", "U1", "M8[s]"])
PICTURE = Picture(np.zeros((12, 10, 3), np.uint8))
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray:
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=14))
    dtype = draw(DTYPES)
    fill = draw(st.sampled_from([0, 1, 7, 255]))
    array = np.zeros(shape, dtype)
    if array.size and np.dtype(dtype).kind in "uif?":
        flat = array.reshape(-1)
        flat[: draw(st.integers(0, array.size))] = fill
        if np.dtype(dtype).kind == "f" and draw(st.booleans()):
            flat[-1] = draw(st.sampled_from([np.nan, np.inf, -1.0]))
    return array


def accepted(picture: Picture) -> None:
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.ndim == 3
    assert picture.pixels.shape[2] == 3
    assert min(picture.size) >= 8


@FUZZ
@given(any_array())
def test_any_array_is_a_picture_or_an_error(array):
    try:
        accepted(load_picture(array))
    except IirError as error:
        assert str(error)


@FUZZ
@given(any_array())
def test_any_array_is_a_mask_or_an_error(array):
    try:
        mask = load_mask(array, PICTURE)
    except IirError as error:
        assert str(error)
    else:
        assert mask.dtype == np.uint8
        assert mask.shape == (12, 10)
        assert {0, 1} <= set(mask.ravel().tolist()) <= {0, 1, 255}


@FUZZ
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=14), elements=st.floats(width=32)))
def test_any_tensor_is_a_picture_or_an_error(array):
    try:
        accepted(load_picture(torch.from_numpy(array)))
    except IirError as error:
        assert str(error)


@pytest.mark.parametrize("source", [None, 3, b"x", b"", [1, 2], object(), "", "no/such.png", "bad\0path", "/"])
def test_what_is_no_picture_is_refused(source):
    with pytest.raises((ImageError, PictureNotFoundError)):
        load_picture(source)


def test_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        load_picture(tmp_path / "gone.png")


def test_the_four_kinds_agree(scene, tmp_path):
    pixels, _ = scene
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, tensor):
        assert np.array_equal(load_picture(source).pixels, pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_every_pil_mode_becomes_rgb(mode):
    grey = np.tile(np.linspace(0, 255, 20, dtype=np.uint8), (16, 1))
    image = Image.fromarray(grey)
    image = Image.fromarray(grey.astype(np.uint16) * 200) if mode == "I;16" else image.convert(mode)
    found = load_picture(image).pixels
    assert found.shape == (16, 20, 3)
    assert found[:, -1].mean() > found[:, 0].mean() + 100


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_picture_and_mask_alike(orientation, suffix, tmp_path):
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[2:8, 3:12] = 200
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transpose that undoes each orientation on save
    stored = Image.fromarray(upright)
    if orientation in turns:
        stored = stored.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    stored.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    picture = load_picture(path)
    assert np.abs(picture.pixels.astype(int) - upright).max() < 40
    assert frame_of(path) == picture.frame
    mask = upright[..., 0] > 0
    if suffix != "jpg":
        assert np.array_equal(load_mask(path, picture), mask)
    assert np.array_equal(load_mask(mask, picture, exif="shown"), mask)
    if orientation > 4:
        # Drawn on the stored pixels by a tool that ignores EXIF: its size gives it away.
        assert np.array_equal(load_mask(np.asarray(stored)[..., 0], picture), mask)


def test_one_bit_alpha_and_colour_masks():
    mask = np.zeros((12, 10), bool)
    mask[2:9, 1:5] = True
    rgba = np.zeros((12, 10, 4), np.uint8)
    rgba[mask, 3] = 255
    colour = np.zeros((12, 10, 3), np.uint8)
    colour[mask, 2] = 1
    for source in (Image.fromarray(mask), Image.fromarray(rgba), Image.fromarray(colour), mask[None], mask[..., None]):
        assert np.array_equal(load_mask(source, PICTURE), mask)
    assert np.array_equal(load_mask(torch.from_numpy(mask), PICTURE), mask)


@pytest.mark.parametrize(
    ("mask", "cure"),
    [
        (np.zeros((12, 10)), "empty"),
        (np.ones((12, 10)), "whole image"),
        (np.eye(11), "nearest-neighbour"),
        (np.full((12, 10), np.nan), "NaN"),
        (np.zeros((12, 10, 3)), "one value a pixel"),
        (np.full((12, 10), "x"), "numbers"),
    ],
)
def test_bad_masks_name_the_cure(mask, cure):
    with pytest.raises(MaskError, match=cure):
        load_mask(mask, PICTURE)


@pytest.mark.parametrize(
    ("image", "cure"),
    [
        (np.zeros((20, 20, 4), np.uint8), r"a\[\.\.\., :3\]"),
        (np.zeros((4, 20, 3), np.uint8), "at least 8"),
        (np.zeros((8, 900, 3), np.uint8), "tiles"),
        (torch.full((3, 20, 20), 200.0), "divide by 255"),
        (torch.zeros(3, 20, 20, device="meta"), "meta"),
        (torch.zeros(3, 20, 20).to_sparse(), "sparse"),
    ],
)
def test_bad_pictures_name_the_cure(image, cure):
    with pytest.raises(ImageError, match=cure):
        load_picture(image)


def test_an_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    side = int(MAX_PIXELS**0.5) + 1000
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    with pytest.raises(ImageError, match=r"tiles|cannot be read"):
        load_picture(tmp_path / "huge.png")
    with pytest.raises(MaskError, match=r"pixels|cannot be read"):
        load_mask(tmp_path / "huge.png", PICTURE)


def test_the_picture_is_a_copy():
    frame = np.zeros((10, 10, 3), np.uint8)
    picture = load_picture(frame)
    frame[:] = 255
    assert not picture.pixels.any()
    frame.flags.writeable = False
    load_picture(frame[::-1])


def test_transparency_is_shown_on_white():
    rgba = np.zeros((10, 10, 4), np.uint8)
    rgba[:5, :, 3] = 255
    found = load_picture(Image.fromarray(rgba)).pixels
    assert (found[:5] == 0).all()
    assert (found[5:] == 255).all()


AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
LOSSY = [
    ("webp", {"quality": 50}),
    ("webp", {"quality": 50, "exif": Image.Exif()}),
    pytest.param("avif", {"quality": 50}, marks=AVIF),
]


@pytest.mark.parametrize(("suffix", "options"), LOSSY)
def test_a_mask_in_another_lossy_format_is_read_by_its_halves(tmp_path, suffix, options):
    y, x = np.mgrid[:200, :200]
    mask = (y - 100) ** 2 + (x - 100) ** 2 < 80**2
    path = tmp_path / f"mask.{suffix}"
    soft = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1))
    soft.convert("RGB").save(path, **options)
    assert (np.asarray(Image.open(path).convert("L")) > 0).sum() > mask.sum() * 1.005
    assert abs(int(mask_labels(path).labels.sum()) - int(mask.sum())) < mask.sum() * 0.003


@pytest.mark.parametrize(("suffix", "options"), [*LOSSY, ("jpg", {}), ("tif", {"compression": "jpeg"})])
def test_lossy_masks_may_be_coloured_or_come_from_memory(tmp_path, suffix, options):
    y, x = np.mgrid[:200, :200]
    mask = (y - 100) ** 2 + (x - 100) ** 2 < 80**2
    path = tmp_path / f"mask.{suffix}"
    red = np.zeros((200, 200, 3), np.uint8)
    red[mask, 0] = 255
    Image.fromarray(red).save(path, **options)
    for source in (path, Image.open(io.BytesIO(path.read_bytes())), Image.open(os.fsencode(path))):
        assert abs(int(mask_labels(source).labels.sum()) - int(mask.sum())) < mask.sum() * 0.02
    loaded = Image.open(path)
    loaded.load()
    path.unlink()
    assert abs(int(mask_labels(loaded).labels.sum()) - int(mask.sum())) < mask.sum() * 0.02


@pytest.mark.parametrize(("suffix", "options"), LOSSY[:2])
def test_a_cut_out_in_a_lossy_format_marks_its_object_by_alpha(tmp_path, suffix, options):
    rgba = np.full((100, 100, 4), 30, np.uint8)
    rgba[..., 3] = 0
    rgba[20:60, 30:80, 3] = 255
    Image.fromarray(rgba).save(tmp_path / f"cut.{suffix}", **options)
    assert np.array_equal(mask_labels(tmp_path / f"cut.{suffix}").labels, rgba[..., 3] > 0)


@pytest.mark.parametrize("options", [{}, {"save_all": True, "append_images": [Image.new("RGB", (40, 40))]}])
def test_a_mask_in_lossless_webp_keeps_its_values(tmp_path, options):
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 5:30] = 1
    Image.fromarray(mask).convert("RGB").save(tmp_path / "mask.webp", lossless=True, **options)
    path = tmp_path / "mask.webp"
    assert np.array_equal(mask_labels(path, page=0).labels, mask > 0)
    mask[20:30] = 255
    Image.fromarray(mask).convert("RGB").save(path, lossless=True, **options)
    for source in (path, path.read_bytes(), Image.open(path), Image.open(io.BytesIO(path.read_bytes()))):
        assert np.array_equal(mask_labels(source, page=0).labels, mask)
    mask[:5] = 2
    Image.fromarray(mask).convert("RGB").save(path, lossless=True, **options)
    with pytest.raises(MaskError, match="name the object's: value=2"):
        mask_labels(path, page=0)
    assert np.array_equal(mask_labels(path, page=0, value=2).labels == 1, mask == 2)


def test_a_webp_whose_file_is_gone_counts_as_lossy_and_the_cure_works(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 5:30] = 255
    images = []
    for brightest in (255, 3):
        Image.fromarray(np.minimum(mask, brightest)).convert("RGB").save(tmp_path / "mask.webp", lossless=True)
        images.append(Image.open(tmp_path / "mask.webp"))
        images[-1].load()
        (tmp_path / "mask.webp").unlink()
    white, small = images
    assert np.array_equal(mask_labels(white).labels, mask > 0)
    picture = load_picture(np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(MaskError, match=r"a lossy file: half the scale or more.* save as PNG"):
        load_mask(small, picture)
    with pytest.raises(MaskError, match="save a grey PNG of them"):
        load_mask(small, picture, value=3)
    small.convert("L").save(tmp_path / "mask.png")
    assert np.array_equal(load_mask(tmp_path / "mask.png", picture, value=3), mask > 0)


def test_a_sparse_mask_is_refused():
    with pytest.raises(MaskError, match="sparse"):
        mask_labels(torch.ones(4, 4).to_sparse())


def test_files_are_closed_again(tmp_path):
    for name, image in (("a.webp", Image.new("RGB", (20, 20))), ("a.gif", Image.new("P", (20, 20)))):
        image.save(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            frame_of(tmp_path / name)
            load_picture(tmp_path / name)
            mask_labels(tmp_path / name)
            gc.collect()


def test_a_mask_saved_as_jpeg_is_read_by_its_halves(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.jpg", quality=60)
    assert (np.asarray(Image.open(tmp_path / "mask.jpg")) > 0).sum() > 420
    found = mask_labels(tmp_path / "mask.jpg").labels
    assert abs(int(found.sum()) - 400) <= 8
