"""Pixels of a support's mask that nobody labelled: neither object nor background, on the way into every engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import ndimage

from iir_sdk import FewShotSegmenter
from iir_sdk.data.folder import read_picture_set
from iir_sdk.demo.job import read_jobs
from iir_sdk.evaluation.evaluate import Evaluator
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.pictures.preprocess import Preprocessing

JOBS = {job.name: job for job in read_jobs()}


def iou_of(engine, name: str, pixels: np.ndarray, mask: np.ndarray) -> float:
    """Of a job's query, by one support."""
    segmenter = FewShotSegmenter(engine)
    segmenter.add_support(pixels, mask)
    found, truth = segmenter.predict(JOBS[name].query).mask, JOBS[name].truth()
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("name", ["coins", "face", "eye"])
def test_a_ring_that_is_unknown_costs_less_than_one_that_is_the_object(embedded, name):
    picture = load_picture(JOBS[name].support)
    mask = load_mask(JOBS[name].support_mask, picture) == 1
    wide = np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(11))) > 0
    ring_is_object = iou_of(embedded.engine, name, picture.pixels, wide)
    ring_is_unknown = iou_of(embedded.engine, name, picture.pixels, np.where(mask, 1, np.where(wide, 255, 0)))
    assert ring_is_unknown > ring_is_object + 0.005


def test_other_coins_that_are_unknown_are_no_background(embedded):
    pixels = load_picture(JOBS["coins"].query).pixels
    coins = JOBS["coins"].truth()
    one = ndimage.label(coins)[0] == 3
    known = iou_of(embedded.engine, "coins", pixels, np.where(one, 1, np.where(coins, 255, 0)))
    assert known > iou_of(embedded.engine, "coins", pixels, one) + 0.001


def test_what_is_known_is_cut_as_the_mask_is(rng):
    mask, known = np.zeros((200, 300), bool), np.ones((200, 300), bool)
    mask[80:120, 100:160] = True
    known[:, :130] = False
    found = Preprocessing(support_size=64, support_context=2.0).support(np.zeros((200, 300, 3), np.uint8), mask, known)
    assert found.known.shape == found.mask.shape == (64, 64)
    assert (found.known[:, :30] == 0).all()
    assert (found.known[:, 34:] == 1).all()
    assert (found.mask <= found.known + 1e-6).all()


def test_a_cut_without_known_background_is_given_up():
    mask = np.zeros((400, 400), bool)
    mask[180:220, 180:220] = True
    known = mask.copy()
    known[0, 0] = True
    found = Preprocessing(support_size=64).support(np.zeros((400, 400, 3), np.uint8), mask, known)
    assert found.known[0, 0] > 0


def test_none_is_known_throughout(small_model):
    torch.manual_seed(0)
    images, masks = torch.randn(1, 1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    masks[..., 20:40, 20:40] = 1
    with torch.inference_mode():
        states = [small_model.encode_support(images, masks, known).arrays() for known in (None, torch.ones_like(masks))]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_scoring_takes_a_supports_255_for_unknown(small_segmenter, picture_folder, tmp_path):
    pictures = read_picture_set(picture_folder / "coins")
    mask = pictures.mask("coin", "coin1")
    mask[:, :10] = 255
    for folder in ("images", "masks/coin"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(pictures.picture("coin1")).save(tmp_path / "images/coin1.png")
    Image.fromarray(mask).save(tmp_path / "masks/coin/coin1.png")
    found = Evaluator(small_segmenter, read_picture_set(tmp_path))._support("coin", "coin1")
    expected = small_segmenter.engine.encode(pictures.picture("coin1"), mask == 1, mask != 255)
    found, expected = found.arrays(), expected.arrays()
    assert all(np.array_equal(found[n], expected[n]) for n in expected)
    as_background = small_segmenter.engine.encode(pictures.picture("coin1"), mask == 1).arrays()
    assert any(not np.array_equal(found[n], as_background[n]) for n in expected)
