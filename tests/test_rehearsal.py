"""Rehearsals: each shot of a label segmented by the others."""

from __future__ import annotations

import io

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import PICTURES, read_jobs
from iir_sdk.errors import LabelError, NoSupportError, SupportError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.results.full_size import probability_map
from iir_sdk.results.rehearsal import THRESHOLDS, Rehearsal, ious_at_thresholds
from tests.conftest import draw_scene

JOBS = {job.name: job for job in read_jobs()}


def both_shots(segmenter: FewShotSegmenter, name: str, label: str = "object", **options: object) -> None:
    """A job's two pictures as shots."""
    job = JOBS[name]
    segmenter.add_support(job.support, job.support_mask, label, **options)
    segmenter.add_support(job.query, job.folder / f"{name}_query_mask.png", label, **options)


@pytest.fixture
def segmenter(embedded):
    yield embedded
    embedded.clear_supports()


def test_ious_at_thresholds_are_those_of_the_masks(rng):
    lead = rng.normal(0, 2, (12, 15)).astype(np.float32)
    mask, known = rng.random((70, 90)) > 0.4, rng.random((70, 90)) > 0.2
    probability = probability_map(lead, (70, 90))
    for threshold, iou in zip(THRESHOLDS, ious_at_thresholds(lead, mask, known), strict=True):
        found = probability > threshold
        assert iou == pytest.approx((found & mask & known).sum() / ((found | mask) & known).sum(), abs=1e-3)


@pytest.mark.parametrize("name", ["grass", "coins"])
def test_what_it_expects_is_what_a_prediction_reaches(segmenter, name):
    both_shots(segmenter, name)
    rehearsal = segmenter.rehearse()
    segmenter.clear_supports()
    job = JOBS[name]
    segmenter.add_support(job.support, job.support_mask)
    result, truth = segmenter.predict(job.query), job.truth()
    for threshold, iou in zip(THRESHOLDS, rehearsal.ious[1], strict=True):
        mask = result.probability > threshold
        assert iou == pytest.approx((mask & truth).sum() / (mask | truth).sum(), abs=0.03)
    assert rehearsal.scores[1] == pytest.approx(result.score, abs=0.02)
    assert rehearsal.iou == pytest.approx(rehearsal.ious[:, THRESHOLDS.index(0.5)].mean())


def test_a_shot_that_shows_something_else_is_the_odd_one(segmenter):
    both_shots(segmenter, "grass", "thing")
    picture = load_picture(JOBS["grass"].query)
    segmenter.add_support(picture.pixels[:, ::-1], JOBS["grass"].truth()[:, ::-1], "thing")
    wrong = segmenter.add_support(JOBS["flag"].support, JOBS["flag"].support_mask, "thing")
    rehearsal = segmenter.rehearse("thing")
    assert rehearsal.odd_one == wrong.id
    assert rehearsal.iou_range[0] < 0.3 < 0.8 < rehearsal.iou_range[1]
    report = str(rehearsal)
    assert report.startswith("'thing': 4 shots, each segmented by the other 3\n  IoU at threshold 0.5: ")
    assert f"lowest: support {wrong.id}" in report
    assert "4 shots say little" in report


def test_counterexamples_that_are_pictures_give_a_value_for_absent_below(segmenter):
    both_shots(segmenter, "coins")
    assert segmenter.rehearse().absent_below is None
    assert "add_counterexample(image)" in str(segmenter.rehearse())
    for name in ("face", "grass", "epithelium"):
        segmenter.add_counterexample(JOBS[name].query)
    segmenter.add_counterexample(JOBS["flag"].support, JOBS["flag"].support_mask)
    rehearsal = segmenter.rehearse()
    assert len(rehearsal.counterexamples) == 3
    assert rehearsal.counterexample_scores.max() < rehearsal.absent_below < rehearsal.scores.min()
    assert f"absent_below={rehearsal.absent_below:.4g} loses 0 of the shots and takes 0" in str(rehearsal)
    assert "1 counterexample(s) are regions" in str(rehearsal)
    result = segmenter.predict(JOBS["eye"].query, absent_below=rehearsal.absent_below)
    assert not result.mask.any()


def rehearsal(ious: list[list[float]], scores: list[float] = (), others: list[float] = ()) -> Rehearsal:
    """Of shots with IoUs at thresholds 0.3 and 0.5, 0 at all others."""
    table = np.zeros((len(ious), len(THRESHOLDS)))
    for row, (at_third, at_half) in zip(table, ious, strict=True):
        row[THRESHOLDS.index(0.3)], row[THRESHOLDS.index(0.5)] = at_third, at_half
    names = tuple("abcdef"[: len(ious)])
    return Rehearsal("x", names, table, np.array(scores, np.float32), tuple(others), np.array(others, np.float32))


def test_a_threshold_is_judged_by_shots_it_was_not_chosen_on():
    one = rehearsal([[0.9, 0.6], [0.8, 0.5], [0.7, 0.6]], [0.9] * 3)
    assert (one.threshold, one.iou_at_threshold) == (0.3, pytest.approx(0.8))
    assert "threshold 0.3 fits these shots best: 0.80; chosen without the shot it is tried on: 0.80" in str(one)
    other = rehearsal([[0.9, 0.1], [0.4, 0.5]], [0.9] * 2)
    assert other.threshold == 0.3
    assert other.iou_at_threshold == pytest.approx((0.1 + 0.4) / 2)
    assert "no better than 0.5" in str(other)
    assert "threshold: 0.5 fits best" in str(rehearsal([[0.5, 0.5], [0.4, 0.4]], [0.9] * 2))


def test_absent_below_lies_in_the_widest_gap_with_the_fewest_errors():
    shots = [[0.5, 0.5]] * 3
    assert rehearsal(shots, [0.9, 0.8, 0.95], [0.1, 0.2]).absent_below == pytest.approx(0.5)
    mixed = rehearsal(shots, [0.9, 0.8, 0.3], [0.1, 0.2, 0.85, 0.25])
    assert mixed.absent_below == pytest.approx((0.25 + 0.3) / 2)
    assert "loses 0 of the shots and takes 1 of the counterexamples" in str(mixed)
    turned = rehearsal(shots, [0.1, 0.1, 0.2], [0.8, 0.9])
    assert turned.absent_below is None
    assert "no value tells them apart" in str(turned)


def test_what_is_missing_is_named_with_a_cure_that_works(small_segmenter, scene):
    with pytest.raises(LabelError, match="labels: none"):
        small_segmenter.rehearse()
    small_segmenter.add_support(*scene, "a")
    with pytest.raises(NoSupportError, match=r"rehearsing needs two.*add_support\(image, mask, label='a'\)"):
        small_segmenter.rehearse("a")
    bare = small_segmenter.add_support(*scene, "a", keep_picture=False)
    assert bare.picture == b""
    with pytest.raises(SupportError, match=rf"{bare.id}.* keep no picture.*without keep_picture=False"):
        small_segmenter.rehearse("a")
    small_segmenter.remove_support(bare)
    small_segmenter.add_support(*draw_scene(np.random.default_rng(5)), "a")
    report = str(small_segmenter.rehearse("a"))
    assert "2 shots, each segmented by the other\n" in report
    # Of a checkpoint that was not calibrated scores say nothing.
    assert "score" not in report
    assert small_segmenter.rehearse("a").absent_below is None


@pytest.mark.filterwarnings("ignore:the support's object", "ignore:the network finds", "ignore:no background")
def test_files_keep_what_it_needs_and_partial_masks_and_boxes_are_said(small_segmenter, scene):
    pixels, mask = scene
    small_segmenter.add_support(pixels, mask, known=mask | (np.arange(90) < 45))
    small_segmenter.add_support(pixels, box=(20, 20, 60, 50))
    small_segmenter.add_counterexample(draw_scene(np.random.default_rng(5))[0])
    before = small_segmenter.rehearse()
    assert "masks of 1 shot(s) are known in part" in str(before)
    assert "masks of 1 shot(s) are the network's own" in str(before)
    buffer = io.BytesIO()
    small_segmenter.save_supports(buffer)
    small_segmenter.clear_supports()
    small_segmenter.load_supports(buffer.getvalue())
    assert str(small_segmenter.rehearse()) == str(before)
    content = bytearray(buffer.getvalue())
    for shown in (small_segmenter.supports[0].picture, small_segmenter.supports[0].packed.marked):
        damaged = bytes(content).replace(shown, bytes(len(shown)))
        with pytest.raises(SupportError, match=r"damaged"):
            small_segmenter.load_supports(damaged)


def test_a_picture_that_is_not_to_be_kept_is_not_in_the_file(small_segmenter, scene):
    sizes = []
    for keep in (True, False):
        small_segmenter.clear_supports()
        small_segmenter.add_support(*scene, keep_picture=keep)
        counterexample = small_segmenter.add_counterexample(scene[0], keep_picture=keep)
        assert bool(counterexample.picture) == keep
        assert small_segmenter.add_counterexample(*scene).picture == b""
        buffer = io.BytesIO()
        small_segmenter.save_supports(buffer)
        sizes.append(len(buffer.getvalue()))
        assert (b"JFIF" in buffer.getvalue()) == keep
    assert sizes[0] > sizes[1]


def test_demo_pictures_are_small_when_kept(segmenter):
    both_shots(segmenter, "coins")
    for support in segmenter.supports:
        assert len(support.picture) < 120_000
        assert len(support.packed.marked) < 3_000
    picture = load_picture(PICTURES / "coins_support.jpg")
    assert np.array_equal(segmenter.supports[0].mask, load_mask(JOBS["coins"].support_mask, picture) == 1)
