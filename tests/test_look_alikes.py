"""What resembles a counterexample more than the supports is taken from masks and from scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.model.iir import IIR
from iir_sdk.model.look_alikes import presence_lost, without_look_alikes
from iir_sdk.model.support_state import Tokens
from iir_sdk.model.tokens import Vectors
from iir_sdk.supports.encoded import join_tasks, most_alike
from tests.test_iir import LIGHT, episode


def unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    images, masks, _ = episode(tasks=1, shots=2)
    with torch.inference_mode():
        return IIR(LIGHT).eval().encode_support(images, masks)


def against(state, vectors: np.ndarray):
    return state.with_tokens(state.tokens, torch.from_numpy(vectors.astype(np.float32))[None])


@torch.inference_mode()
def test_positions_lose_by_how_far_their_nearest_support_stays_behind_the_nearest_counterexample(state):
    rng = np.random.default_rng(0)
    channels = state.high.foreground.shape[2]
    others, grid = unit(rng.normal(size=(3, channels))), rng.normal(size=(channels, 4, 4)).astype(np.float32)
    logits = torch.zeros(1, 2, 4, 4)
    lowered = without_look_alikes(logits, Vectors.measured(torch.from_numpy(grid)[None]), against(state, others))
    supports = unit(state.high.foreground[0].double().numpy())
    for y, x in np.ndindex(4, 4):
        position = unit(grid[:, y, x])
        behind = max(position @ s for s in supports) - max(position @ o for o in others)
        assert float(lowered[0, 1, y, x]) == pytest.approx(50 * min(0.0, behind + 0.05), abs=1e-3)
    assert (lowered[:, 0] == 0).all()
    assert (lowered[:, 1] < 0).any()


@torch.inference_mode()
def test_presence_falls_by_what_the_predicted_object_looks_like(state):
    support = state.high.foreground[0, 0].float().numpy()
    other = unit(np.random.default_rng(1).normal(size=support.shape))
    state = against(state, other[None])
    # Left half of the picture is like the support, right half like the counterexample.
    grid = torch.from_numpy(np.stack([support, other], 1).astype(np.float32)).repeat_interleave(2, 1)
    high = Vectors.measured(grid[None, :, None].expand(1, -1, 4, 4).contiguous())
    left, right = (torch.full((1, 2, 4, 4), -9.0) for _ in range(2))
    left[:, 1, :, :2] = right[:, 1, :, 2:] = 9.0
    left[:, 0, :, :2] = right[:, 0, :, 2:] = -9.0
    left[:, 0, :, 2:] = right[:, 0, :, :2] = 9.0
    assert float(presence_lost(left, high, state)) == 0
    best = max(float(s @ torch.from_numpy(other).float()) for s in state.high.foreground[0])
    assert float(presence_lost(right, high, state)) == pytest.approx(30 * (best + 0.05 - 1), abs=0.01)


@torch.inference_mode()
def test_without_counterexamples_logits_and_scores_stay_as_they_are(state):
    assert not state.against.any()
    high = Vectors.measured(torch.randn(1, state.high.foreground.shape[2], 4, 4))
    logits = torch.randn(1, 2, 8, 8)
    assert torch.equal(without_look_alikes(logits, high, state), logits)
    assert not presence_lost(logits, high, state).any()


def test_what_looks_most_like_the_object_weighs_tokens_by_mass_and_likeness():
    rng = np.random.default_rng(2)
    high, mass = unit(rng.normal(size=(1, 5, 6))), rng.uniform(0.5, 4, (1, 1, 5))
    objects = unit(rng.normal(size=(2, 6)))
    nothing = np.zeros((1, 5))
    tokens = Tokens(nothing, mass, nothing, high, nothing, nothing)
    middle = unit(objects.mean(0))
    shares = [m * np.exp(h @ middle / 0.05) for h, m in zip(high[0], mass[0, 0], strict=True)]
    expected = unit(sum(s * h for s, h in zip(shares, high[0], strict=True)))
    np.testing.assert_allclose(most_alike(tokens, objects), expected, atol=1e-4)


def test_tasks_with_more_and_fewer_counterexamples_join_and_each_keeps_its_own(small_segmenter, scene):
    picture = np.random.default_rng(3).integers(0, 255, (60, 80, 3), np.uint8)
    small_segmenter.add_support(*scene)
    encoded = next(iter(small_segmenter.supports)).state
    tokens = small_segmenter.add_counterexample(picture).tokens
    twice = encoded.beside([tokens, replace(tokens, high=np.roll(tokens.high, 1, 2))])
    joined = join_tasks([encoded, twice])
    assert joined.against.shape[:2] == (2, 2)
    assert not joined.against[0].any()
    np.testing.assert_array_equal(joined.against[1], twice.against[0])


def test_one_counterexample_takes_the_look_alike_and_leaves_the_object():
    """Cells that are masked for coins, on real pictures with the embedded weights."""
    jobs = {job.name: job for job in read_jobs()}
    coins, cells = jobs["coins"], jobs["epithelium"]
    segmenter = FewShotSegmenter(device="cpu")
    segmenter.add_support(coins.support, coins.support_mask)
    before = segmenter.predict(coins.query), segmenter.predict(cells.query)
    segmenter.add_counterexample(cells.support)
    after = segmenter.predict(coins.query), segmenter.predict(cells.query)
    assert before[1].mask.mean() > 0.4
    assert after[1].mask.mean() < 0.1
    assert after[1].score < 0.2 < before[1].score
    assert after[0].score > 0.9
    union = (after[0].mask | before[0].mask).sum()
    assert (after[0].mask & before[0].mask).sum() / union > 0.95
