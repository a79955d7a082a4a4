"""Things of one mask: connected, and cut apart where they touch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.formats.instances import instances_of
from tests.test_polygons import MASKS, disc, iou


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_things_are_disjoint_connected_and_make_up_the_mask(mask):
    from scipy import ndimage

    for split in (False, True):
        things = instances_of(mask, "thing", split=split)
        assert np.array_equal(sum([t.mask.astype(int) for t in things], np.zeros(mask.shape, int)), mask)
        for thing in things:
            assert ndimage.label(thing.mask, np.ones((3, 3)))[1] == 1
            left, top, right, bottom = thing.box
            assert thing.area == thing.mask.sum() == mask[top:bottom, left:right][thing.crop].sum()
            assert thing.label == "thing"
    assert len(instances_of(mask, "thing")) == ndimage.label(mask, np.ones((3, 3)))[1]


def test_discs_that_touch_are_cut_apart_and_others_stay_whole():
    size = (120, 200)
    discs = [disc(size, (60, 50), 30), disc(size, (60, 105), 30), disc(size, (60, 160), 30)]
    mask = np.any(discs, 0)
    assert len(instances_of(mask, "coin")) == 1
    things = sorted(instances_of(mask, "coin", split=True), key=lambda t: t.box)
    assert len(things) == 3
    for thing, one in zip(things, discs, strict=True):
        assert iou(thing.mask, one) > 0.95


def test_one_thing_of_any_shape_without_a_neck_stays_one():
    size = (100, 160)
    y, x = np.mgrid[:100, :160]
    for mask in (
        (y > 30) & (y < 60) & (x > 10) & (x < 150),
        ((y - 50) / 20) ** 2 + ((x - 80) / 70) ** 2 < 1,
        disc(size, (50, 80), 45) & ~disc(size, (50, 80), 25),
        (x > 10) & (x < 150) & (y > 20) & (y < 25),
        (y > x / 2) & (y < 90),
    ):
        assert len(instances_of(mask, "a", split=True)) == 1


def test_specks_can_be_left_out():
    mask = disc((50, 50), (20, 20), 10)
    mask[45, 45] = True
    assert [t.area for t in instances_of(mask, "a", min_area=2)] == [int(mask.sum()) - 1]
    assert len(instances_of(mask, "a")) == 2


def test_the_demos_coins_are_counted():
    coins = next(j for j in read_jobs() if j.name == "coins")
    truth = coins.truth()
    assert len(instances_of(truth, "coin")) == len(instances_of(truth, "coin", split=True)) == 20


def test_a_results_things_and_supervisions_detections(recwarn):
    coins = next(j for j in read_jobs() if j.name == "coins")
    segmenter = FewShotSegmenter(device="cpu")
    segmenter.add_support(coins.support, coins.support_mask, "coin")
    result = segmenter.predict(coins.query)
    things = result.instances()
    assert np.array_equal(np.any([t.mask for t in things], 0), result.mask)
    largest = max(things, key=lambda t: t.area)
    assert largest.polygon().area == pytest.approx(largest.area, rel=0.02)
    left, top, right, bottom = largest.polygon().bounds
    assert (left, top, right, bottom) == pytest.approx(largest.box, abs=1)
    detections = result.to_supervision()
    assert len(detections) == len(things)
    assert np.array_equal(detections.mask, [t.mask for t in things])
    assert detections.xyxy.tolist() == [list(t.box) for t in things]
    assert set(detections.class_id) == {0}
    assert set(detections.data["class_name"]) == {"coin"}
    assert detections.confidence == pytest.approx(result.score)
    assert len(segmenter.predict(coins.query, absent_below=1.0).to_supervision()) == 0
