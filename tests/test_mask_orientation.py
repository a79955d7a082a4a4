"""Masks of pictures with an EXIF orientation: drawn on the picture as shown, or on its pixels as stored."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.data.folder import read_picture_set, read_picture_sets
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import DatasetError, IirWarning, MaskError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from tests.command import output_of
from tests.lowest_iou import LOWEST_IOU

FLAG = next(job for job in read_jobs() if job.name == "flag")
STORED_BY = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""PIL's transpose that undoes each orientation."""


def stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).transpose(Image.Transpose(STORED_BY[orientation])))


def phone_picture(pixels: np.ndarray, orientation: int, path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored(pixels, orientation)).save(path, quality=95, exif=exif)
    return path


def corner(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[2 : height // 3, 3 : width // 2] = 1
    return mask


def silently(call, *arguments, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("error", IirWarning)
        return call(*arguments, **how)


@pytest.mark.parametrize("size", [(40, 40), (40, 30)])
@pytest.mark.parametrize("orientation", STORED_BY)
def test_where_both_readings_fit_both_are_named_and_exif_chooses(orientation, size, tmp_path):
    mask = corner(*size)
    picture = load_picture(phone_picture(np.dstack([mask * 255] * 3), orientation, tmp_path / "phone.jpg"))
    turned = stored(mask, orientation)
    assert np.array_equal(silently(load_mask, mask, picture, exif="shown"), mask)
    assert np.array_equal(silently(load_mask, turned, picture, exif="stored"), mask)
    if orientation > 4 and size[0] != size[1]:
        # Its size tells.
        assert np.array_equal(silently(load_mask, mask, picture), mask)
        assert np.array_equal(silently(load_mask, turned, picture), mask)
        for other, exif in ((turned, "shown"), (mask, "stored")):
            with pytest.raises(MaskError, match="nearest-neighbour"):
                load_mask(other, picture, exif=exif)
        return
    with pytest.warns(IirWarning, match=rf"orientation {orientation}.*exif='shown'.*exif='stored'"):
        assert np.array_equal(load_mask(mask, picture), mask)


def test_a_mask_that_is_the_same_both_ways_needs_no_word(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1
    picture = load_picture(phone_picture(np.zeros((40, 40, 3), np.uint8), 3, tmp_path / "phone.jpg"))
    assert np.array_equal(silently(load_mask, mask, picture), mask)


def test_a_mask_with_an_orientation_of_its_own_is_as_shown(tmp_path):
    mask = corner(40, 40)
    picture = load_picture(phone_picture(np.zeros((40, 40, 3), np.uint8), 6, tmp_path / "phone.jpg"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored(mask, 6)).save(tmp_path / "mask.png", exif=exif)
    assert np.array_equal(silently(load_mask, tmp_path / "mask.png", picture), mask)
    assert np.array_equal(silently(load_mask, tmp_path / "mask.png", picture, exif="stored"), mask)


def test_another_word_is_refused():
    with pytest.raises(MaskError, match="'auto', 'shown' or 'stored'"):
        load_mask(corner(40, 40), load_picture(np.zeros((40, 40, 3), np.uint8)), exif="upright")


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_real_job_is_done_either_way(embedded, orientation, tmp_path):
    pixels, mask = load_picture(FLAG.support).pixels, np.asarray(Image.open(FLAG.support_mask).convert("L"))
    phone = phone_picture(pixels, orientation, tmp_path / "phone.jpg")
    for exif, drawn in (("shown", mask), ("stored", stored(mask, orientation))):
        segmenter = FewShotSegmenter(embedded.engine)
        silently(segmenter.add_support, phone, drawn, exif=exif)
        found, truth = segmenter.predict(FLAG.query).mask, FLAG.truth()
        assert (found & truth).sum() / (found | truth).sum() >= LOWEST_IOU["flag"]


@pytest.fixture
def phone_set(tmp_path):
    """Two pictures with orientation 3, whose masks were drawn on the stored pixels."""
    for folder in ("images", "masks/thing"):
        (tmp_path / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        mask = corner(48, 64)
        pixels = rng.integers(0, 90, (48, 64, 3)).astype(np.uint8) + mask[..., None] * np.uint8(160)
        phone_picture(pixels, 3, tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(stored(mask, 3) * 255).save(tmp_path / "masks/thing" / f"{name}.png")
    return tmp_path


def test_training_sets_say_so_and_can_be_told(phone_set):
    upright = corner(48, 64)
    with pytest.warns(IirWarning, match=r"a\.png fits it both.*exif='stored'"):
        assert not np.array_equal(read_picture_set(phone_set).mask("thing", "a"), upright)
    (pictures,) = read_picture_sets(phone_set, exif="stored")
    assert np.array_equal(silently(pictures.mask, "thing", "a"), upright)
    assert np.array_equal(pictures.only(["thing"]).mask("thing", "a"), upright)
    Image.fromarray(upright[:-1]).save(phone_set / "masks/thing/a.png")
    with pytest.raises(DatasetError, match="nearest-neighbour"):
        pictures.mask("thing", "a")


def test_evaluate_takes_the_choice(phone_set, small_checkpoint):
    words = ("evaluate", "--data", phone_set, "--weights", small_checkpoint, "--episodes", 2)
    with pytest.warns(IirWarning, match="exif='stored'"):
        output_of(*words)
    silently(output_of, *words, "--exif", "stored")
