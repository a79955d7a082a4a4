"""Files of several pages or frames: one is taken with a word, or the one that was asked for."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageSequence

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import IirWarning, ImageError, MaskError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask, mask_labels

LEVELS = (40, 120, 200)


def grey(level: int) -> Image.Image:
    pixels = np.full((20, 30, 3), level, np.uint8)
    # Frames that are alike are joined by some formats.
    pixels[: level // 20] = 255 - level
    return Image.fromarray(pixels)


@pytest.fixture(params=["tif", "webp", "gif", "png"])
def several(request, tmp_path):
    first, *rest = map(grey, LEVELS)
    lossless = {"lossless": True} if request.param == "webp" else {}
    path = tmp_path / f"several.{request.param}"
    first.save(path, save_all=True, append_images=rest, **lossless)
    return path


def level_of(picture) -> int:
    return min(LEVELS, key=lambda level: abs(level - int(picture.pixels[-1, 0, 0])))


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*holds . pages", IirWarning)
        yield


def test_the_first_page_is_taken_with_a_word(several):
    with pytest.warns(IirWarning, match=r"holds 3 pages.*page=0.*page=1"):
        assert level_of(load_picture(several)) == LEVELS[0]
    with pytest.warns(IirWarning, match="3 pages"):
        load_picture(several.read_bytes())


@pytest.mark.usefixtures("no_warning")
def test_every_page_can_be_had(several):
    for page, level in enumerate(LEVELS):
        for source in (several, several.read_bytes(), io.BytesIO(several.read_bytes()), Image.open(several)):
            assert level_of(load_picture(source, page=page)) == level
    with pytest.raises(ImageError, match=r"page=3 does not exist: image has 3"):
        load_picture(several, page=3)
    for bad in (-1, 1.0, True, "1"):
        with pytest.raises(ImageError, match="must be an integer"):
            load_picture(several, page=bad)


@pytest.mark.usefixtures("no_warning")
def test_an_image_that_was_turned_to_a_page_keeps_it(several):
    image = Image.open(several)
    image.seek(2)
    assert level_of(load_picture(image)) == LEVELS[2]
    assert level_of(load_picture(image, page=1)) == LEVELS[1]
    assert image.tell() == 2


@pytest.mark.usefixtures("no_warning")
def test_pages_of_what_has_none():
    assert load_picture(grey(40), page=0).size == (20, 30)
    with pytest.raises(ImageError, match="page=1 does not exist"):
        load_picture(grey(40), page=1)
    with pytest.raises(ImageError, match="which has no pages"):
        load_picture(np.zeros((20, 20, 3), np.uint8), page=0)


@pytest.mark.usefixtures("no_warning")
def test_previews_and_overviews_are_no_pages(tmp_path):
    grey(40).save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[grey(120)])
    assert load_picture(tmp_path / "phone.jpg").size == (20, 30)
    overview = grey(40).resize((15, 10))
    overview.encoderinfo = {"tiffinfo": {254: 1}}
    grey(40).save(tmp_path / "map.tif", save_all=True, append_images=[overview])
    with Image.open(tmp_path / "map.tif") as written:
        written.seek(1)
        assert written.tag_v2[254] == 1
    assert load_picture(tmp_path / "map.tif").size == (20, 30)


def pages_of_masks(path):
    mask = np.zeros((3, 20, 30), np.uint8)
    mask[0, :5], mask[1, 5:10], mask[2, 10:15] = 255, 255, 255
    images = [Image.fromarray(m) for m in mask]
    images[0].save(path, save_all=True, append_images=images[1:])
    return mask == 255


def test_masks_have_pages_too(tmp_path):
    masks = pages_of_masks(tmp_path / "masks.tif")
    picture = load_picture(grey(40))
    with pytest.warns(IirWarning, match="mask holds 3 pages"):
        assert np.array_equal(load_mask(tmp_path / "masks.tif", picture), masks[0])
    for page in range(3):
        assert np.array_equal(load_mask(tmp_path / "masks.tif", picture, page=page), masks[page])
    with pytest.raises(MaskError, match="page=3 does not exist"):
        load_mask(tmp_path / "masks.tif", picture, page=3)
    # A mask of one page serves any page of its picture.
    Image.fromarray(masks[0]).save(tmp_path / "one.png")
    assert np.array_equal(mask_labels(tmp_path / "one.png", page=2).labels, masks[0])


@pytest.mark.usefixtures("no_warning")
def test_supports_and_queries_take_a_page(small_segmenter, several, tmp_path):
    pages_of_masks(tmp_path / "masks.tif")
    segmenter = FewShotSegmenter(small_segmenter.engine)
    segmenter.add_support(several, tmp_path / "masks.tif", page=1)
    for page, level in enumerate(LEVELS):
        (of_many,) = segmenter.predict_many([several], page=page)
        for result in (segmenter.predict(several, page=page), of_many):
            assert abs(int(result.image[-1, 0, 0]) - level) < 6


def test_frames_of_one_image_are_each_their_own(small_segmenter, several, scene):
    segmenter = FewShotSegmenter(small_segmenter.engine)
    segmenter.add_support(*scene)
    with pytest.warns(IirWarning, match="pages"):
        results = list(segmenter.predict_many(ImageSequence.Iterator(Image.open(several))))
    assert [min(LEVELS, key=lambda v, r=r: abs(v - int(r.image[-1, 0, 0]))) for r in results] == list(LEVELS)
