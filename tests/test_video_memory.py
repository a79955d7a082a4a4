"""What earlier frames say of the next: the place of the object, and frames remembered within a budget and a guard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.engines.base import Engine
from iir_sdk.engines.pytorch import TorchEngine
from iir_sdk.errors import ConfigError
from iir_sdk.pictures.load import Picture
from iir_sdk.results.segmentation import Cut
from iir_sdk.video import memory as rules
from iir_sdk.video.memory import Memory, Recall
from iir_sdk.video.reading import Still
from tests.videos import camera

FRAMES, MASKS = camera(8)


@pytest.fixture
def taught(tiny_checkpoint: Path) -> FewShotSegmenter:
    segmenter = FewShotSegmenter(tiny_checkpoint, device="cpu", threads=1)
    segmenter.add_support(FRAMES[0], MASKS[0])
    return segmenter


@pytest.fixture
def by_colours(monkeypatch):
    """As by a runtime that does not say what places look like."""
    monkeypatch.setattr(TorchEngine, "segment_with_looks", Engine.segment_with_looks)


def still(index: int, pixels: np.ndarray | None = None, step: float = 1.0) -> Still:
    return Still(index, index * step, Picture(FRAMES[index] if pixels is None else pixels))


def remembering(monkeypatch, **values):
    """Every frame is sure, but for what is said otherwise."""
    for name, value in {"_SURE": -1, "_AGREED": 0, "_LEAST": 0, "_CLEAR": 0.5, **values}.items():
        monkeypatch.setattr(rules, name, value)


def test_a_place_keeps_some_of_what_it_was(taught, by_colours):
    memory = Memory(taught, None, Cut(), Recall(0, 0.5))
    first, second = (memory.segment(still(i)) for i in range(2))
    gain = second.leads[0] - taught.predict(FRAMES[1]).leads[0]
    before = first.leads[0].clip(-3, 3)
    assert np.isclose(gain.mean(), 0.5 * before.mean(), atol=0.1)
    assert np.corrcoef(gain.ravel(), before.ravel())[0, 1] > 0.4 and np.abs(gain).max() <= 0.5 * 3 + 1e-4


def test_the_users_mask_is_what_the_next_frame_starts_from(taught, by_colours):
    memory = Memory(taught, None, Cut(), Recall(0, 1.0))
    memory.segment(still(0), {"object": MASKS[0]})
    gain = memory.segment(still(1)).leads[0] - taught.predict(FRAMES[1]).leads[0]
    height, width = gain.shape
    drawn = np.asarray(Image.fromarray(MASKS[0]).resize((width, height)))
    assert gain[drawn].mean() > gain[~drawn].mean() + 1 and gain[~drawn].mean() < -1


def test_another_scene_starts_anew(taught, by_colours):
    memory = Memory(taught, None, Cut(), Recall(0, 1.0))
    memory.segment(still(0), {"object": MASKS[0]})
    with Image.open(next(job for job in read_jobs() if job.name == "coins").query) as image:
        coins = np.asarray(image.convert("RGB").resize((128, 128)))
    result = memory.segment(still(1, coins))
    assert np.allclose(result.leads, taught.predict(coins).leads, atol=1e-5)


def test_as_many_frames_as_the_budget_are_remembered_and_no_support_is_forgotten(taught, monkeypatch):
    remembering(monkeypatch)
    memory, given = Memory(taught, None, Cut(), Recall(2, 0)), taught.supports
    states = []
    for i in range(6):
        memory.segment(still(i))
        states.append(list(memory.remembered.get("object", ())))
    assert [len(s) for s in states][-3:] == [2, 2, 2] and states[-1][0] is states[-2][1]
    assert taught.supports is given and len(given) == 1


def test_what_is_remembered_counts_half_beside_the_given_supports(taught, monkeypatch):
    remembering(monkeypatch)
    memory = Memory(taught, None, Cut(), Recall(1, 0))
    for i in range(3):
        memory.segment(still(i))
    (state,) = memory.remembered["object"]
    other = FewShotSegmenter(taught.engine)
    tasks = other.engine.prepare([state])
    _, both, _, _ = taught.segment_beside(still(3).picture, tasks, labels=None, cut=Cut())
    joined = memory.segment(still(3))
    assert np.allclose(joined.leads[0], both.leads.mean(0), atol=1e-4)
    assert np.allclose(both.leads[0], taught.predict(FRAMES[3]).leads[0], atol=1e-4)


@pytest.mark.parametrize("guard", [{"_SURE": 1.1}, {"_AGREED": 1.1}, {"_LEAST": 1.1}, {"_CLEAR": 1.1}])
def test_what_is_not_sure_is_not_remembered(taught, monkeypatch, guard):
    remembering(monkeypatch, **guard)
    memory = Memory(taught, None, Cut(), Recall(2, 0))
    for i in range(3):
        memory.segment(still(i))
    assert not memory.remembered


def test_frames_close_in_time_are_not_all_remembered(taught, monkeypatch):
    remembering(monkeypatch)
    memory, encoded = Memory(taught, None, Cut(), Recall(5, 0)), []
    encode = taught.engine.encode
    monkeypatch.setattr(taught.engine, "encode", lambda *given: encoded.append(1) or encode(*given))
    for i in range(8):
        memory.segment(still(i, step=0.1))
    assert 1 <= len(encoded) <= 3


@pytest.mark.parametrize("wrong", [{"memory": -1}, {"memory": 1.5}, {"memory": True}, {"steady": 2}, {"steady": "1"}])
def test_recall_out_of_range_is_told(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Recall(**wrong)
