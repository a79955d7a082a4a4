"""How look-alikes are chosen and counted, on numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from iir_sdk.data.folder import PictureSet
from tests.test_speed_report import script


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return script("counterexamples")


def stems(letter: str, count: int) -> tuple[str, ...]:
    return tuple(f"{letter}{i}" for i in range(count))


def test_pairs_are_of_classes_that_pictures_show_apart(benchmark):
    classes = {"fork": (*stems("f", 4), "both"), "knife": (*stems("k", 3), "both"), "spoon": (*stems("s", 2), "both")}
    pictures = PictureSet("cutlery", Path(), {}, classes)
    tasks = benchmark.tasks_of(pictures, 9, 2, seed=0)
    assert {(task.name, task.other) for task in tasks} == {("fork", "knife"), ("knife", "fork")}
    for task in tasks:
        assert len(task.shown) == len(task.others) == 3
        assert not {"both"} & {*task.shown, *task.others}
        assert {key[0] for key in task.shown} == {task.name[0]}
    assert tasks == benchmark.tasks_of(pictures, 9, 2, seed=0)
    assert len(benchmark.tasks_of(pictures, 1, 2, seed=0)) == 1


def test_false_positives_are_counted_at_equal_recall(benchmark):
    objects = [np.array([0.9, 0.8, 0.7, 0.2], np.float32)]
    before = benchmark.Counts(objects, [0.5], [np.full((2, 2), 0.9, np.float32), np.zeros((2, 2), np.float32)])
    assert (before.recall(), before.area(), before.masked()) == (0.75, 0.5, 0.5)
    # All is halved: at 0.5 nothing is found at all, at equal recall no false positive has gone.
    halved = benchmark.Counts([objects[0] / 2], [0.0], [p / 2 for p in before.look_alikes])
    row = benchmark.row(before, halved)
    assert row["false area"] == [50.0, 0.0, 50.0]
    assert row["recall"] == [75.0, 0.0, 75.0]
    assert row["threshold"] == pytest.approx(0.35)
    told_apart = benchmark.Counts([objects[0] / 2], [0.0], [p / 4 for p in before.look_alikes])
    assert benchmark.row(before, told_apart)["with a mask"] == [50.0, 0.0, 0.0]
    assert "false area 50.0 % -> 50.0 % (x 1.00), with a mask" in benchmark.verdict(row)
    assert "with a mask 50.0 % -> 0.0 % (x 0.00); to be halved" in benchmark.verdict(benchmark.row(before, told_apart))
    assert "| all | 2 | 50.0 -> 0.0 (50.0) |" in benchmark.table({"all": row})
