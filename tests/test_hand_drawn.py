"""Masks as people draw them, made from exact ones."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from iir_sdk.training.run.hand_drawn import clicks, filled_box, hand_drawn, rough_outline, strokes

SIDE = 96


def disc(radius: float, x: float = 48, y: float = 40) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (np.hypot(rows - y, columns - x) <= radius).astype(np.uint8)


@given(st.floats(0.6, 30), st.integers(0, 1000))
def test_whatever_the_way_an_object_stays_and_the_same_seed_draws_the_same(radius: float, seed: int) -> None:
    exact = disc(radius)
    drawn = hand_drawn(exact, random.Random(seed))
    assert drawn.shape == exact.shape
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn)) <= {0, 1, 255}
    assert (drawn == 1).any()
    assert np.array_equal(drawn, hand_drawn(exact, random.Random(seed)))


@pytest.mark.parametrize("way", [strokes, clicks])
@given(seed=st.integers(0, 1000))
def test_marks_tell_the_truth_where_they_are_and_nothing_elsewhere(way, seed: int) -> None:
    exact = disc(12)
    exact[:8] = 255
    drawn = way(exact, random.Random(seed))
    told = drawn != 255
    assert np.array_equal(drawn[told], exact[told])
    assert told.mean() < 0.5
    assert (drawn == 1).any()


def test_a_box_is_the_objects_within_a_twentieth_of_its_sides() -> None:
    exact = disc(20)
    boxes = [filled_box(exact, random.Random(seed)) for seed in range(50)]
    for box in boxes:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns)
        assert abs(rows[0] - 20) <= 3
        assert abs(columns[-1] - 68) <= 3
    assert len({int(box.sum()) for box in boxes}) > 5


def test_rough_outlines_are_off_by_a_fifth_of_the_radius_at_most_as_a_rule_both_ways() -> None:
    exact = disc(20)
    exact[:5] = 255
    ious, sizes = [], []
    for seed in range(60):
        drawn = rough_outline(exact, random.Random(seed))
        assert ((drawn == 255) == (exact == 255)).all()
        both = (drawn == 1) & (exact == 1)
        ious.append(both.sum() / ((drawn == 1) | (exact == 1)).sum())
        sizes.append((drawn == 1).sum() / (exact == 1).sum())
    assert 0.6 < np.mean(ious) < 0.95
    assert min(sizes) < 0.85
    assert max(sizes) > 1.15
