"""Strokes that correct a mask as a person would, and what is known of a picture by them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from iir_sdk.evaluation.strokes import Strokes, correction, iou, stroke_on
from iir_sdk.results.correction import corrected


@pytest.fixture
def truth():
    labels = np.zeros((120, 160), np.uint8)
    labels[20:100, 30:130] = 1
    labels[:10] = 255
    return labels


def test_a_right_mask_is_not_corrected_and_neither_are_small_mistakes(truth):
    mask = truth == 1
    assert not correction(mask, truth).known.any()
    mask[20:23, 30:60] = False
    mask[:10] = True  # what counts nowhere is no mistake
    assert not correction(mask, truth).known.any()


def test_strokes_lie_in_the_largest_mistakes_and_hold(truth):
    mask = truth == 1
    mask[20:100, 30:70] = False
    mask[110:, 10:80] = True
    mask[110:, 110:140] = True
    strokes = correction(mask, truth, strokes=1)
    assert strokes.of_object.any() and strokes.of_background.any()
    assert not (strokes.of_object & (mask | (truth != 1))).any()
    assert not (strokes.of_background & (~mask | (truth != 0))).any()
    assert not strokes.of_background[:, 100:].any()
    assert correction(mask, truth, strokes=2).of_background[:, 100:].any()
    held = strokes.held(mask)
    assert held[strokes.of_object].all() and not held[strokes.of_background].any()
    assert iou(held, truth) > iou(mask, truth)


def test_a_stroke_is_a_thin_line_along_a_region():
    region = np.zeros((200, 300), bool)
    region[40:160, 20:60] = True
    region[120:160, 20:280] = True
    stroke = stroke_on(region)
    assert ndimage.label(stroke, np.ones((3, 3)))[1] == 1
    assert not (stroke & ~region).any()
    assert 0.05 < stroke.sum() / region.sum() < 0.5
    rows, columns = np.nonzero(stroke)
    assert np.ptp(rows) > 70 and np.ptp(columns) > 180, "from one end of the region to the other"
    assert not stroke_on(np.zeros((20, 20), bool)).any()


def test_a_region_thinner_than_a_hand_is_drawn_as_it_is():
    line = np.zeros((400, 400), bool)
    line[200, 10:390] = True
    assert (stroke_on(line) == line).all()


def test_iou_counts_what_is_known_alone():
    truth = np.array([[1, 1, 0, 255]], np.uint8)
    assert iou(np.array([[True, False, True, True]]), truth) == pytest.approx(1 / 3)
    assert iou(np.zeros((1, 4), bool), np.zeros((1, 4), np.uint8)) == 1
    assert iou(np.ones((1, 4), bool), np.zeros((1, 4), np.uint8)) == 0


def test_known_of_a_corrected_picture_are_the_strokes_and_what_is_sure():
    probability = np.array([[0.99, 0.95, 0.7, 0.5, 0.3, 0.05, 0.01, 0.95]], np.float32)
    of_object = np.array([[0, 0, 0, 0, 1, 1, 0, 1]], bool)
    of_background = np.array([[1, 0, 0, 0, 0, 0, 0, 1]], bool)
    labels = corrected(probability, of_object, of_background)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1, 255, 255, 1, 1, 0, 0]]


def test_strokes_are_two_masks_apart():
    strokes = Strokes(np.array([[True, False, False]]), np.array([[False, True, False]]))
    assert strokes.known.tolist() == [[True, True, False]]
    assert strokes.held(np.array([[False, True, True]])).tolist() == [[True, False, True]]
