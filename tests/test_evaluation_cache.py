"""What scoring remembers changes no bit of a score, and nothing is computed twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.data.dataset import IGNORE
from iir_sdk.data.folder import PictureSet, read_picture_set
from iir_sdk.engines.pytorch import TorchEngine
from iir_sdk.evaluation.evaluate import Evaluator, Protocol, draw_episodes, evaluate_set
from iir_sdk.evaluation.metrics import SegmentationScore, counts_of
from iir_sdk.results.full_size import probability_map

PROTOCOL = Protocol(episodes=20, seeds=(0, 1))


@pytest.fixture
def coins(picture_folder) -> PictureSet:
    return read_picture_set(picture_folder / "coins")


@pytest.mark.parametrize("shots", [1, 2])
def test_scores_are_those_of_episodes_that_remember_nothing(embedded, coins, shots):
    protocol = Protocol(shots=shots, episodes=5)
    episodes = draw_episodes(coins, protocol)[0]
    expected, engine = SegmentationScore(), embedded.engine
    ious = []
    for e in episodes:
        masks = {key: coins.mask(e.name, key) for key in e.supports}
        states = [engine.encode(coins.picture(key), mask == 1, mask != IGNORE) for key, mask in masks.items()]
        pixels = coins.picture(e.query)
        (segmented,), _ = engine.segment([pixels], engine.prepare([embedded.task(states)]))
        probability = probability_map(segmented.leads[0], pixels.shape[:2])
        np.testing.assert_array_equal(probability, Evaluator(embedded, coins).probability(e))
        ious.append(expected.add_counts(e.name, counts_of(probability > 0.5, coins.mask(e.name, e.query))))
    score = evaluate_set(embedded, coins, protocol)
    assert [each.iou for each in score.scored] == ious
    assert (score.miou, score.fb_iou) == (expected.miou, expected.fb_iou)


def test_pictures_are_read_once_and_episodes_counted_once(small_checkpoint, coins, monkeypatch):
    segmenter = FewShotSegmenter(small_checkpoint, device="cpu")
    asked: Counter[str] = Counter()

    def counting(name: str) -> None:
        method = getattr(TorchEngine, name)

        def counted(*args: Any) -> Any:
            asked[name] += 1
            return method(*args)

        monkeypatch.setattr(TorchEngine, name, counted)

    for name in ("encode", "read", "segment_read"):
        counting(name)
    evaluate_set(segmenter, coins, PROTOCOL)
    every = [e for of_seed in draw_episodes(coins, PROTOCOL).values() for e in of_seed]
    assert dict(asked) == {
        "encode": len({(e.name, key) for e in every for key in e.supports}),
        "read": len({e.query for e in every}),
        "segment_read": len(set(every)),
    }
    assert len(set(every)) < len(every)
