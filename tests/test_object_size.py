"""Supports that show too little of their object are told when they are added."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from iir_sdk.demo.job import PICTURES, read_jobs
from iir_sdk.errors import IirWarning
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.supports.object_size import warn_of_small_object
from tests.lowest_iou import LOWEST_IOU


@pytest.fixture
def segmenter(embedded):
    yield embedded
    embedded.clear_supports()


def flag(scale: float) -> tuple[np.ndarray, np.ndarray]:
    picture = Image.open(PICTURES / "flag_support.jpg").convert("RGB")
    mask = Image.open(PICTURES / "flag_support_mask.png").convert("L")
    size = (round(picture.width * scale), round(picture.height * scale))
    return np.array(picture.resize(size, Image.Resampling.BILINEAR)), np.array(mask.resize(size)) > 127


def test_an_object_of_few_pixels_is_told_and_that_of_the_larger_picture_is_not(segmenter):
    truth = np.array(Image.open(PICTURES / "flag_query_mask.png").convert("L")) > 0

    def iou() -> float:
        mask = segmenter.predict(PICTURES / "flag_query.jpg").mask
        return float((mask & truth).sum() / (mask | truth).sum())

    with pytest.warns(IirWarning, match=r"object has 1\d\d pixels.*Take it from a larger picture") as told:
        segmenter.add_support(*flag(0.08))
    assert told[0].filename == __file__
    segmenter.clear_supports()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.add_support(*flag(1))
    assert iou() >= LOWEST_IOU["flag"]


def test_a_thin_object_is_told():
    mask = np.zeros((600, 600), bool)
    mask[np.arange(600), np.arange(600)] = True
    with pytest.warns(IirWarning, match=r"fills 0\.2% .*below 1\.4%.*larger or thicker.*further supports"):
        warn_of_small_object(mask, np.ones_like(mask), Preprocessing())


def test_good_supports_are_not_complained_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for job in read_jobs():
            mask = np.array(Image.open(job.support_mask).convert("L")) > 0
            warn_of_small_object(mask, np.ones_like(mask), Preprocessing())


def test_unknown_pixels_are_no_object():
    mask, known = np.zeros((300, 300), bool), np.ones((300, 300), bool)
    mask[100:109, 100:109] = True
    known[150:] = False
    with pytest.warns(IirWarning, match="has 81 pixels"):
        warn_of_small_object(mask, known, Preprocessing())
