"""A label's supports are made ready once, when it is first predicted by."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from iir_sdk.supports import cache

pytestmark = pytest.mark.filterwarnings("ignore:the support's object")


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """Numbers of shots that were joined and merged, in order."""
    shots: list[int] = []
    original = cache.as_task

    def counted(states, budget, counterexamples):
        shots.append(len(states))
        # Long enough for a second thread to come.
        time.sleep(0.05)
        return original(states, budget, counterexamples)

    monkeypatch.setattr(cache, "as_task", counted)
    return shots


def test_adding_makes_nothing_ready(small_segmenter, scene, made):
    for _ in range(5):
        small_segmenter.add_support(*scene, "a")
    small_segmenter.add_support(*scene, "b")
    assert made == []
    small_segmenter.predict(scene[0], labels=["a"])
    assert made == [5]
    small_segmenter.predict(scene[0])
    small_segmenter.predict(scene[0], labels=["b", "a"])
    assert made == [5, 1]


def test_only_what_changed_is_made_anew(small_segmenter, scene, made):
    first = small_segmenter.add_support(*scene, "a")
    small_segmenter.add_support(*scene, "a")
    small_segmenter.add_support(*scene, "b")
    small_segmenter.predict(scene[0])
    small_segmenter.add_support(*scene, "b")
    small_segmenter.predict(scene[0])
    assert made == [2, 1, 2]
    small_segmenter.remove_support(first)
    before = small_segmenter.predict(scene[0])
    assert made == [2, 1, 2, 1]
    small_segmenter.remove_support("b")
    alone = small_segmenter.predict(scene[0])
    np.testing.assert_allclose(alone.probability, before["a"].probability, atol=1e-5)
    assert made == [2, 1, 2, 1]


def test_threads_that_predict_first_at_once_share_one_making(small_segmenter, scene, made):
    for label in ("a", "a", "b"):
        small_segmenter.add_support(*scene, label)
    with ThreadPoolExecutor(4) as pool:
        asked = [None, ["a"], ["b"], None]
        results = list(pool.map(lambda labels: small_segmenter.predict(scene[0], labels=labels), asked))
    assert sorted(made) == [1, 2]
    np.testing.assert_array_equal(results[0].probabilities, results[3].probabilities)


def test_the_supports_of_a_call_are_those_of_its_moment(small_segmenter, scene):
    small_segmenter.add_support(*scene, "a")
    results = small_segmenter.predict_many([scene[0]] * 2, batch_size=1)
    small_segmenter.clear_supports()
    small_segmenter.add_support(*scene, "b")
    assert [r.labels for r in results] == [("a",), ("a",)]


def test_a_label_may_be_given_by_place(small_segmenter, scene):
    assert small_segmenter.add_support(*scene, "disc").label == "disc"


def test_labels_of_an_array_are_plain_strings(small_segmenter, scene):
    small_segmenter.add_support(*scene, "a")
    (label,) = small_segmenter.predict(scene[0], labels=np.array(["a"])).labels
    assert type(label) is str
