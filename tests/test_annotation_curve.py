"""The annotation curve: who is touched next, and what is counted, on numbers that can be checked by hand."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.evaluation.strokes import correction, iou
from iir_sdk.pictures.load import load_picture
from iir_sdk.results.correction import corrected
from tests.test_speed_report import script

JOBS = {job.name: job for job in read_jobs()}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return script("annotation_curve")


def test_chance_is_the_same_for_the_same_seed_and_takes_each_picture_once(benchmark):
    def drawn(seed: str) -> list[str]:
        looks, order = dict.fromkeys("abcdef"), benchmark.by_chance(seed)
        return [key for _ in range(6) if not looks.pop(key := order(looks), None)]

    assert sorted(drawn("0")) == list("abcdef")
    assert drawn("0") == drawn("0")
    assert drawn("0") != drawn("1")


def test_untouched_pictures_are_compared_with_themselves(benchmark):
    steps = [
        benchmark.Step(("a",), {"a": 1.0, "b": 0.2, "c": 0.6}),
        benchmark.Step(("a", "b"), {"a": 1.0, "b": 0.8, "c": 0.7}),
        benchmark.Step(("a", "b", "c"), {"a": 1.0, "b": 0.8, "c": 0.9}),
    ]
    assert benchmark.figures(steps) == {
        "all": [60.0, 83.33, 90.0],
        "untouched": [40.0, 70.0, None],
        "the same at first": [40.0, 60.0, None],
    }


def test_means_are_over_sets_and_steps_that_all_have(benchmark):
    def of_set(*seeds: list[float]) -> dict[str, object]:
        figures = [{"all": s, "untouched": [*s[:-1], None], "the same at first": [*s[:-1], None]} for s in seeds]
        return {"label": "x", "pictures": 9, "curves": dict.fromkeys(benchmark.ARMS, figures)}

    sets = {"one": of_set([10.0, 20.0, 30.0], [20.0, 30.0, 40.0]), "two": of_set([50.0, 60.0])}
    assert benchmark.mean_curve(sets, "random order", "all") == [32.5, 42.5]
    assert benchmark.mean_curve(sets, "random order", "untouched") == [32.5]
    table = benchmark.table(sets)
    assert "| random order, all pictures | 32.5 | 42.5 |" in table
    assert "| random order, untouched alone (gain) | 32.5 (+0.0) |" in table
    assert "| two: x | 9 | 50.0 | 60.0 | 60.0 | 60.0 |" in table
    assert "2 touched 42.5 (+10.0; bar: 6)" in benchmark.verdict(sets)


@pytest.mark.parametrize("name", ["flag", "eye"])
def test_a_corrected_mask_teaches_more_than_its_strokes_alone(embedded: FewShotSegmenter, name):
    job = JOBS[name]
    image, truth = load_picture(job.query).pixels, job.truth().astype(np.uint8)
    embedded.clear_supports()
    embedded.add_support(job.support, job.support_mask)
    first = embedded.predict(image)
    strokes = correction(first.mask, truth)
    assert strokes.known.any()
    ious = [iou(strokes.held(first.mask), truth)]
    for alone in (True, False):
        embedded.clear_supports()
        embedded.add_support(job.support, job.support_mask)
        labels = corrected(np.full_like(first.probability, 0.5) if alone else first.probability, *strokes)
        if (labels == 1).any():
            embedded.add_support(image, labels == 1, known=labels != 255)
        else:
            embedded.add_counterexample(image, strokes.of_background)
        ious.append(iou(strokes.held(embedded.predict(image).mask), truth))
    embedded.clear_supports()
    untaught, by_strokes, by_both = ious
    assert by_both > by_strokes + 0.02
    assert by_both > untaught - 0.01
