"""The one rule for masks: what their numbers mean, in add_support, training sets and scoring alike."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from iir_sdk import FewShotSegmenter
from iir_sdk.data.folder import read_picture_set
from iir_sdk.demo.job import FAILURES, read_jobs
from iir_sdk.errors import MaskError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask, mask_labels
from tests.lowest_iou import LOWEST_IOU

JOBS = {job.name: job for job in read_jobs()}


def disc(side: int = 60, radius: float = 20) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return (y - side / 2) ** 2 + (x - side / 2) ** 2 < radius**2


def ring(width: int = 5) -> np.ndarray:
    return disc(radius=20 + width) & ~disc()


def labels(mask: np.ndarray, **how) -> np.ndarray:
    return mask_labels(mask, **how).labels


def blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(np.uint8(mask) * 255).filter(ImageFilter.GaussianBlur(radius)))


@pytest.mark.parametrize("number", [1, 3, 77, 128, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.float32])
def test_one_number_beside_0_is_the_object(number, dtype):
    assert np.array_equal(labels(disc().astype(dtype) * dtype(number)), disc())


@pytest.mark.parametrize("number", [1, 15, 91])
def test_255_beside_another_number_is_unknown(number):
    found = labels(np.where(disc(), number, np.where(ring(), 255, 0)).astype(np.uint8))
    assert np.array_equal(found, np.where(disc(), 1, np.where(ring(), 255, 0)))


def test_255_beside_another_number_is_no_background():
    picture = load_picture(np.zeros((60, 60, 3), np.uint8))
    with pytest.raises(MaskError, match="set background to 0: 255 beside another value is unknown"):
        load_mask(np.where(disc(), 7, 255).astype(np.uint8), picture)
    assert np.array_equal(load_mask(np.where(disc(), 255, 0).astype(np.uint8), picture), disc())


@pytest.mark.parametrize("radius", [0.7, 1, 3, 8])
def test_soft_edges_are_cut_at_half(radius):
    soft = blurred(disc(200, 60), radius)
    assert np.array_equal(labels(soft), soft >= 128)
    assert np.array_equal(labels(soft.astype(np.float32) / 255), soft >= 128)
    assert np.array_equal(labels(soft.astype(np.uint16) * 257), soft >= 128)


@pytest.mark.parametrize("side", [97, 150, 333])
def test_resized_masks_are_soft(side):
    resized = Image.fromarray(np.uint8(disc(200, 60)) * 255).resize((side, side), Image.Resampling.BILINEAR)
    assert np.array_equal(labels(np.asarray(resized)), np.asarray(resized) >= 128)


def test_a_map_of_probabilities_is_cut_at_half():
    assert np.array_equal(labels(np.where(disc(), 0.98, 1e-6)), disc())
    assert np.array_equal(labels(torch.from_numpy(np.where(disc(), 0.6, 0.4).astype(np.float32))), disc())


def classes() -> np.ndarray:
    mask = np.zeros((60, 60), np.uint8)
    mask[5:25, 5:25], mask[30:50, 5:25], mask[5:25, 30:50] = 3, 5, 200
    return mask


@pytest.mark.parametrize("kind", ["array", "file", "instances"])
def test_several_numbers_are_classes_and_the_printed_cure_works(kind, tmp_path):
    source = mask = classes()
    if kind == "file":
        source = tmp_path / "mask.png"
        Image.fromarray(mask).save(source)
    if kind == "instances":
        source = mask.astype(np.int32) + (mask > 0) * 1000
        mask = source
    with pytest.raises(MaskError, match="several values") as caught:
        mask_labels(source)
    one, several = re.search(r"value=(\d+), or several: value=\((\d+, \d+)\)", str(caught.value)).groups()
    assert np.array_equal(labels(source, value=int(one)), mask == int(one))
    pair = tuple(map(int, several.split(", ")))
    assert np.array_equal(labels(source, value=pair), np.isin(mask, pair))
    assert np.array_equal(labels(mask > 0), mask > 0)


def test_a_chosen_class_leaves_255_unknown():
    mask = classes()
    mask[55:] = 255
    assert np.array_equal(labels(mask, value=5), np.where(mask == 5, 1, np.where(mask == 255, 255, 0)))
    assert np.array_equal(labels(mask, value=(5, 255)), np.isin(mask, (5, 255)))


def test_a_class_that_is_not_there_names_those_that_are():
    with pytest.raises(MaskError, match=r"value=4.*it holds 0, 3, 5 and 200"):
        labels(classes(), value=4)
    for bad in (True, 1.5, "3", (), ("a",)):
        with pytest.raises(MaskError, match="must be an integer, or several"):
            labels(classes(), value=bad)


def test_a_trimap_is_not_guessed_and_its_cure_works():
    mask = np.where(disc(), 255, np.where(ring(), 128, 0)).astype(np.uint8)
    with pytest.raises(MaskError, match="trimap"):
        labels(mask)
    cured = np.where(mask == 128, 255, mask == 255)
    assert np.array_equal(labels(cured), np.where(disc(), 1, np.where(ring(), 255, 0)))


@pytest.mark.parametrize(
    ("mask", "cure"), [(np.where(disc(), 3.0, -3.0), "mask > 0"), (np.where(disc(), 3, -1), "value=3")]
)
def test_negative_numbers_name_their_cure(mask, cure):
    with pytest.raises(MaskError, match=re.escape(cure)):
        labels(mask)
    assert np.array_equal(labels(mask, value=3), disc())
    assert np.array_equal(labels(mask > 0), disc())


@pytest.mark.parametrize("job", (*JOBS.values(), *read_jobs(FAILURES)), ids=lambda job: job.name)
def test_a_photo_is_no_mask(job):
    for source in (job.support, load_picture(job.query).pixels, np.asarray(Image.open(job.query).convert("L"))):
        with pytest.raises(MaskError, match="swapped"):
            mask_labels(source)


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
@pytest.mark.parametrize("job", JOBS.values(), ids=lambda job: job.name)
def test_a_mask_that_was_saved_as_jpeg_is_no_photo(job, quality, tmp_path):
    truth = job.truth()
    Image.fromarray(truth).convert("L").save(tmp_path / "mask.jpg", quality=quality)
    found = labels(tmp_path / "mask.jpg") == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.9


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(JOBS)), st.floats(0.5, 20))
def test_no_blurred_mask_is_a_photo(name, radius):
    soft = blurred(JOBS[name].truth(), radius)
    assert np.array_equal(labels(soft), soft >= 128)


def iou_of(engine, name: str, mask, **how) -> float:
    segmenter = FewShotSegmenter(engine)
    segmenter.add_support(JOBS[name].support, mask, **how)
    found, truth = segmenter.predict(JOBS[name].query).mask, JOBS[name].truth()
    return float((found & truth).sum() / (found | truth).sum())


def test_supports_follow_the_rule_on_real_pictures(embedded):
    mask = np.asarray(Image.open(JOBS["coins"].support_mask).convert("L")) > 0
    soft = blurred(mask, 3)
    assert iou_of(embedded.engine, "coins", soft) == pytest.approx(iou_of(embedded.engine, "coins", soft >= 128))
    assert iou_of(embedded.engine, "coins", np.where(mask, 3, 5).astype(np.uint8), value=3) >= LOWEST_IOU["coins"]
    with pytest.raises(MaskError, match="swapped"):
        FewShotSegmenter(embedded.engine).add_support(JOBS["coins"].support_mask, JOBS["coins"].support)


def test_training_sets_follow_the_same_rule(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks/thing").mkdir(parents=True)
    void = np.where(disc(), 3, np.where(ring(), 255, 0)).astype(np.uint8)
    masks = {"void": void, "soft": blurred(disc(), 1.5), "white": np.uint8(disc()) * 255}
    for name, mask in masks.items():
        Image.new("RGB", (60, 60)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks/thing" / f"{name}.png")
    pictures = read_picture_set(tmp_path)
    for name, mask in masks.items():
        assert np.array_equal(pictures.mask("thing", name), labels(mask)), name
    Image.fromarray(classes()).save(tmp_path / "masks/thing/white.png")
    with pytest.raises(MaskError, match=r"white\.png holds several values"):
        pictures.mask("thing", "white")


@pytest.mark.parametrize("name", ["coins", "epithelium", "eye"])
def test_a_predicted_map_is_a_mask(embedded, name):
    segmenter = FewShotSegmenter(embedded.engine)
    segmenter.add_support(JOBS[name].support, JOBS[name].support_mask)
    probability = segmenter.predict(JOBS[name].query).probability
    levels = (probability * 255).round().astype(np.uint8)
    assert np.array_equal(labels(probability), probability >= 0.5)
    assert np.array_equal(labels(levels), levels >= 128)
