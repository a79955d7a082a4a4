"""Supports by a box: the network makes the mask."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.engines import box as from_box
from iir_sdk.errors import IirWarning, MaskError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask

JOBS = {job.name: job for job in read_jobs()}


@pytest.fixture
def segmenter(embedded):
    yield embedded
    embedded.clear_supports()


def shot(name: str) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    picture = load_picture(JOBS[name].support)
    mask = load_mask(JOBS[name].support_mask, picture) == 1
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return picture.pixels, mask, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


# The eye's mask by a box is right, and yet its query loses most by what little is not.
@pytest.mark.parametrize(
    ("name", "least", "lost"), [("coins", 0.95, 0.1), ("grass", 0.95, 0.1), ("eye", 0.85, 0.25), ("face", 0.8, 0.1)]
)
def test_the_mask_made_of_a_box_is_nearer_to_the_object_than_the_box(segmenter, name, least, lost):
    pixels, mask, box = shot(name)
    support = segmenter.add_support(pixels, box=box)
    assert support.box == box
    filled = np.zeros_like(mask)
    filled[box[1] : box[3], box[0] : box[2]] = True
    assert not (support.mask & ~filled).any()
    assert iou(support.mask, mask) > max(least, iou(filled, mask) + 0.05)
    by_mask = iou_of_query(segmenter, name)
    segmenter.clear_supports()
    segmenter.add_support(pixels, mask)
    assert by_mask > iou_of_query(segmenter, name) - lost


def iou_of_query(segmenter, name: str) -> float:
    return iou(segmenter.predict(JOBS[name].query).mask, JOBS[name].truth())


def test_a_support_shows_its_mask_also_from_a_file(segmenter):
    pixels, mask, box = shot("coins")
    whole, boxed = segmenter.add_support(pixels, mask), segmenter.add_support(pixels, box=np.array(box))
    np.testing.assert_array_equal(whole.mask, mask)
    assert whole.box is None
    assert whole.mask.shape == whole.image_size == pixels.shape[:2]
    buffer = io.BytesIO()
    segmenter.save_supports(buffer)
    segmenter.clear_supports()
    loaded = segmenter.load_supports(buffer.getvalue())
    for before, after in zip((whole, boxed), loaded, strict=True):
        np.testing.assert_array_equal(after.mask, before.mask)
        assert (after.box, after.image_size, after.picture) == (before.box, before.image_size, before.picture)


def test_where_nothing_is_found_the_box_is_the_mask_and_it_is_told(small_segmenter, scene, monkeypatch):
    monkeypatch.setattr(from_box, "_LEAST_FILLED", 1.1)
    with pytest.warns(IirWarning, match=r"of the box alone, so all of the box.*Draw a mask instead") as told:
        support = small_segmenter.add_support(scene[0], box=(20, 20, 60, 50))
    assert told[0].filename == __file__
    assert support.mask[20:50, 20:60].all()
    assert support.mask.sum() == 30 * 40


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((10, 10, 10, 40), "holds no pixel"),
        ((40, 30, 20, 10), r"holds no pixel: x1 must exceed x0.*box=\(40, 30, 60, 40\)"),
        ((-1, 10, 40, 40), r"reaches out of its image, which is 70 x 90 .*box=\(0, 10, 40, 40\)"),
        ((10, 10, 40, 80), r"cut it: box=\(10, 10, 40, 70\)"),
        ((100, 10, 140, 40), "none of it is inside"),
        ((0, 0, 90, 70), "covers the whole image"),
        ((0.1, 0.2, 0.5, 0.9), r"shares of the sides; pass pixels: \(x0 \* 90, y0 \* 70"),
        ((1, 2, 3), "four finite numbers"),
        ([(1, 2, 3, 4)], "one box at a time"),
        ("box", "four numbers"),
        ((1, 2, float("nan"), 4), "four finite numbers"),
    ],
)
def test_boxes_that_cannot_be_used(small_segmenter, scene, box, says):
    with pytest.raises(MaskError, match=says):
        small_segmenter.add_support(scene[0], box=box)
    assert len(small_segmenter.supports) == 0


def test_a_mask_or_a_box_and_neither_both_nor_none(small_segmenter, scene):
    pixels, mask = scene
    box = (20, 20, 60, 50)
    with pytest.raises(MaskError, match=r"box=\(x0, y0, x1, y1\)"):
        small_segmenter.add_support(pixels)
    for beside in ({"mask": mask}, {"known": mask}, {"value": 3}):
        with pytest.raises(MaskError, match=f"{next(iter(beside))} were given; pass a mask or a box"):
            small_segmenter.add_support(pixels, box=box, **beside)


@pytest.mark.filterwarnings("ignore:the support's object", "ignore:the network finds")
def test_every_kind_of_four_numbers_is_a_box_and_fractions_grow(small_segmenter, scene, monkeypatch):
    monkeypatch.setattr(from_box, "_LEAST_FILLED", 1.1)
    for box in ([20, 20, 60, 50], np.array([20, 20, 60, 50]), torch.tensor([20.6, 20.1, 59.5, 49.01])):
        support = small_segmenter.add_support(scene[0], box=box)
        assert support.mask.sum() == 30 * 40
        assert all(type(edge) is float for edge in support.box)


def test_a_box_on_a_turned_picture_is_as_shown_or_as_stored(small_checkpoint, scene, monkeypatch, tmp_path):
    monkeypatch.setattr(from_box, "_LEAST_FILLED", 1.1)
    warnings.simplefilter("ignore", IirWarning)
    exif = Image.Exif()
    exif[0x0112] = 6
    # Stored 90 wide and 70 high, shown 70 wide and 90 high.
    Image.fromarray(scene[0]).save(tmp_path / "turned.jpg", exif=exif)
    segmenter = FewShotSegmenter(small_checkpoint, device="cpu")
    shown = segmenter.add_support(tmp_path / "turned.jpg", box=(10, 60, 30, 85), exif="shown")
    assert shown.mask[60:85, 10:30].all()
    stored = segmenter.add_support(tmp_path / "turned.jpg", box=(60, 10, 85, 30), exif="stored")
    expected = np.zeros((70, 90), bool)
    expected[10:30, 60:85] = True
    np.testing.assert_array_equal(stored.mask, np.rot90(expected, -1))
    with pytest.warns(IirWarning, match=r"EXIF orientation 6.*exif='stored'"):
        segmenter.add_support(tmp_path / "turned.jpg", box=(10, 60, 30, 85))
