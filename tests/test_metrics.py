"""mIoU and FB-IoU against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.evaluation.metrics import SegmentationScore


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_scores_equal_loops(seed, count):
    rng = np.random.default_rng(seed)
    score = SegmentationScore()
    counts: dict[str, list[int]] = {}
    background, foreground = [0, 0], [0, 0]
    for _ in range(count):
        name = str(rng.choice(["cat", "dog", "cow"]))
        predicted = rng.uniform(size=(4, 5)) > 0.5
        target = rng.choice([0, 1, 255], (4, 5)).astype(np.uint8)
        score.add(name, predicted, target)
        own = counts.setdefault(name, [0, 0])
        for p, t in zip(predicted.flat, target.flat, strict=True):
            if t == 255:
                continue
            both, either = p and t == 1, p or t == 1
            own[0] += both
            own[1] += either
            foreground[0] += both
            foreground[1] += either
            background[0] += not either
            background[1] += not both
    ious = [c[0] / c[1] if c[1] else 0 for c in counts.values()]
    assert score.miou == pytest.approx(sum(ious) / len(ious))
    expected = [side[0] / side[1] if side[1] else 0 for side in (background, foreground)]
    assert score.fb_iou == pytest.approx(sum(expected) / 2)


def test_sums_come_before_ratios():
    """A class's IoU is the ratio of its sums, not the mean of its pictures' IoUs."""
    score = SegmentationScore()
    large, small = np.ones((10, 10), bool), np.zeros((10, 10), bool)
    small[0, 0] = True
    score.add("a", large, large.astype(np.uint8))
    score.add("a", small, np.zeros((10, 10), np.uint8))
    assert score.per_class == {"a": pytest.approx(100 / 101)}


def test_ignored_pixels_count_nowhere():
    score = SegmentationScore()
    target = np.array([[1, 255, 255, 0]], np.uint8)
    score.add("a", np.array([[True, True, False, False]]), target)
    assert (score.miou, score.fb_iou) == (1.0, 1.0)


def test_nothing_scored_is_zero():
    assert SegmentationScore().miou == 0
    assert SegmentationScore().fb_iou == 0
