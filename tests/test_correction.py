"""Strokes that correct a mask: spread to what looks alike, on real pictures with the embedded weights."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import minimum_filter

from iir_sdk.demo.job import read_jobs
from iir_sdk.evaluation.strokes import Strokes, correction, iou
from iir_sdk.pictures.masks import UNKNOWN
from iir_sdk.pictures.preprocess import resized_map
from iir_sdk.results.correction import SIDE, corrected, corrected_and_spread, spread
from iir_sdk.results.full_size import probability_map

JOB = next(job for job in read_jobs() if job.name == "coins")
PICTURE = np.array(Image.open(JOB.query).convert("RGB"))
TRUTH = (np.array(Image.open(JOB.folder / f"{JOB.name}_query_mask.png")) > 0).astype(np.uint8)


@pytest.fixture(scope="module")
def looks(embedded):
    return embedded.engine.looks(embedded.engine.read(PICTURE), SIDE)


def lead_of(mask: np.ndarray, sure: float) -> np.ndarray:
    """A prediction of such a mask: log-odds at a network's grid."""
    return resized_map(np.where(mask, np.float32(sure), np.float32(-sure)), (60, 60))


def test_what_is_wrong_and_sure_is_corrected_beyond_the_strokes(looks):
    """Strokes changed what is under them alone: all else that is wrong was taught on as sure."""
    half = TRUTH.copy()
    half[:, TRUTH.shape[1] // 2 :] = 0
    lead = lead_of(half == 1, 6)
    strokes = correction(half == 1, TRUTH)
    seen = strokes.held(probability_map(spread(lead, strokes.marks, looks), TRUTH.shape) > 0.5)
    assert iou(seen, TRUTH) > iou(strokes.held(half == 1), TRUTH) + 0.05
    nothing = np.zeros(TRUTH.shape, np.bool_)
    sure = corrected(probability_map(lead, TRUTH.shape), nothing, nothing)
    labels = corrected_and_spread(sure, strokes.marks, looks)
    assert (labels[strokes.of_object] == 1).all() and (labels[strokes.of_background] == 0).all()
    before = corrected(probability_map(lead, TRUTH.shape), *strokes)
    mistaken = [((each != TRUTH) & (each != UNKNOWN)).sum() for each in (before, labels)]
    assert mistaken[1] < 0.7 * mistaken[0]


def test_where_the_prediction_is_right_or_nothing_was_painted_nothing_changes(looks):
    lead = lead_of(TRUTH == 1, 3.5)
    nothing = np.zeros(TRUTH.shape, np.bool_)
    assert (spread(lead, Strokes(nothing, nothing).marks, looks) == lead).all()
    # Far from what is not the object: a stroke there says what is known.
    inside = minimum_filter(TRUTH, 35) == 1
    assert inside.any()
    assert np.abs(spread(lead, Strokes(inside, nothing).marks, looks) - lead).max() < 0.2
