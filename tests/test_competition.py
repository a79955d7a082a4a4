"""Several labels share one map fairly."""

from __future__ import annotations

import numpy as np
import pytest

from iir_sdk.demo.job import read_jobs
from iir_sdk.results.competition import contested, handicaps_of
from iir_sdk.results.full_size import Segmented
from iir_sdk.results.segmentation import Cut, Segmentation, segmentation

SURE = 6.0


def result(leads: list[np.ndarray], scores: list[float] | None, **cut: float) -> Segmentation:
    stacked = np.stack(leads).astype(np.float32)
    both = None if scores is None else np.array([[s, s] for s in scores], np.float32)
    labels = tuple("abcdef"[: len(leads)])
    image = np.zeros((60, 60, 3), np.uint8)
    return segmentation(labels, Segmented(stacked, stacked, both), image=image, cut=Cut(**cut), timings={})


def lead(rows: slice, columns: slice, inside: float = SURE) -> np.ndarray:
    grid = np.full((20, 20), -SURE)
    grid[rows, columns] = inside
    return grid


def test_a_picture_shows_its_own_label_alone_whatever_else_was_taught(embedded):
    jobs = read_jobs()
    for job in jobs:
        embedded.add_support(job.support, job.support_mask, label=job.name)
    results = {job.name: embedded.predict(job.query) for job in jobs}
    embedded.clear_supports()
    for job in jobs:
        found, truth = results[job.name], job.truth()
        place = found.labels.index(job.name) + 1
        won = found.label_map == place
        iou, alone = ((m & truth).sum() / (m | truth).sum() for m in (won, found[job.name].mask))
        assert iou >= alone - 0.02, job.name
        # Face and flag are on one picture, which keeps both.
        shown = {i + 1 for i, other in enumerate(jobs) if other.query.read_bytes() == job.query.read_bytes()}
        assert set(np.unique(found.label_map)) == {0, *shown}, job.name


def test_one_label_is_its_mask_however_low_its_score(embedded):
    jobs = read_jobs()
    embedded.add_support(jobs[0].support, jobs[0].support_mask, label="it")
    for job in jobs:
        for threshold in (0.2, 0.5, 0.9):
            found = embedded.predict(job.query, threshold=threshold)
            assert np.array_equal(found.label_map, found.mask)
            handicaps = handicaps_of(found.leads, found.scores, np.array([True]), threshold)
            assert np.array_equal(contested(found.leads, handicaps, found.mask.shape, threshold), found.mask)
    embedded.clear_supports()


def test_the_score_decides_where_two_are_equally_sure():
    here = lead(slice(4, 16), slice(4, 16))
    found = result([here, here + 1, lead(slice(0, 3), slice(0, 3))], [0.9, 0.3, 0.85])
    # The second is the surest, but most likely not there; the third stands apart, and stays.
    assert set(np.unique(found.label_map)) == {0, 1, 3}
    assert np.array_equal(found.label_map == 1, found["a"].mask)
    assert np.array_equal(found.masks[1], result([here + 1], [0.3]).mask)


def test_what_is_left_of_a_label_that_lost_its_object_is_left_out():
    shown, rim = lead(slice(4, 16), slice(4, 16)), lead(slice(4, 16), slice(3, 17), 3.0)
    found = result([shown, rim], [0.9, 0.8])
    assert set(np.unique(found.label_map)) == {0, 1}
    # But one that keeps most of its mask stays, as a plate around a meal.
    plate = lead(slice(0, 20), slice(0, 20), 3.0)
    assert set(np.unique(result([shown, plate], [0.9, 0.8]).label_map)) == {1, 2}


def test_labels_of_equal_scores_all_stay():
    parts = [lead(slice(0, 20), slice(5 * i, 5 * i + 5)) for i in range(4)]
    for scores in ([0.9, 0.8, 0.95, 0.85], [0.2, 0.2, 0.21, 0.19], None):
        assert set(np.unique(result(parts, scores).label_map)) >= {1, 2, 3, 4}


@pytest.mark.parametrize("scores", [[0.0, 0.0], [1.0, 0.0], None])
def test_extreme_and_missing_scores(scores):
    found = result([lead(slice(0, 8), slice(0, 20)), lead(slice(12, 20), slice(0, 20))], scores)
    expected = {0, 1} if scores == [1.0, 0.0] else {0, 1, 2}
    assert set(np.unique(found.label_map)) == expected


def test_nobody_who_is_absent_takes_part():
    here = lead(slice(4, 16), slice(4, 16))
    assert not result([here, here], [0.2, 0.3], absent_below=0.5).label_map.any()
    assert set(np.unique(result([here + 1, here], [0.4, 0.6], absent_below=0.5).label_map)) == {0, 2}
