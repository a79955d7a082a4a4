"""What needs a look first: one rule for the table, the review page, the web page and the annotation curve."""

from __future__ import annotations

import pytest

from iir_sdk.segmenting.journal import Row
from iir_sdk.segmenting.table import in_order_of_need


def row(file: str, score: float = 1.0, confidence: float = 1.0, area: int = 9, **further: str) -> Row:
    return Row(file, "thing", score, confidence, area, **further)


@pytest.mark.parametrize(
    ("score", "confidence", "area", "certainty"),
    [(0.9, 0.8, 9, 0.72), (0.1, 0.8, 9, 0.08), (0.9, 0.0, 0, 0.1), (0.1, 0.0, 0, 0.9), (0.0, 0.0, 0, 1.0)],
)
def test_certain_are_good_masks_of_what_is_there_and_none_of_what_is_not(score, confidence, area, certainty):
    assert row("a", score, confidence, area).certainty == pytest.approx(certainty)


def test_errors_come_first_then_the_least_certain_then_names():
    rows = [
        row("sure"),
        row("nothing, rightly", 0.1, 0.0, area=0),
        row("nothing, perhaps wrongly", 0.7, 0.0, area=0),
        row("b", 0.5, 0.9),
        row("a", 0.9, 0.5),
        row("broken", error="no picture"),
    ]
    names = ["broken", "nothing, perhaps wrongly", "a", "b", "nothing, rightly", "sure"]
    assert [each.file for each in in_order_of_need(reversed(rows))] == names
