"""Pictures of what is not the object: what they change in a prediction, and how training draws them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from iir_sdk.model.companions import dense_prior, token_affinity
from iir_sdk.model.iir import IIR
from iir_sdk.model.tokens import Vectors, token_bias
from iir_sdk.training import sources
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.bank.stream import PackedView
from iir_sdk.training.run.step import TrainingStep
from tests.test_iir import LIGHT, SMALL, episode
from tests.test_training import TINY, bank, cutouts

__all__ = ["bank", "cutouts"]

SIDE = TINY.bank.label_size


@pytest.fixture(scope="module", params=[LIGHT, SMALL], ids=["light", "paper"])
def model(request: pytest.FixtureRequest) -> IIR:
    torch.manual_seed(0)
    return IIR(request.param).eval()


@torch.inference_mode()
def test_a_counterexample_of_which_nothing_is_known_changes_nothing(model):
    images, masks, query = episode(shots=2)
    state = model.encode_support(images, masks)
    nothing = model.encode_counterexample(torch.randn_like(query), torch.zeros(2, 96, 96))
    torch.testing.assert_close(model(query, state.beside(nothing)).logits, model(query, state).logits)


@torch.inference_mode()
def test_a_counterexample_is_background_as_heavy_as_a_picture_whatever_the_shots_weigh(model):
    images, masks, query = episode(shots=2)
    other = model.encode_counterexample(torch.randn_like(query), torch.ones(2, 96, 96))
    assert not other.side.where(other.mass[:, 0] > 0, 0).any()
    assert torch.equal(other.mass.sum((1, 2)), torch.full((2,), 36.0))
    tokens = model.encode_support(images, masks).beside(other).tokens
    for weights in torch.tensor([[0.5, 0.5], [0.9, 0.1]]):
        total = token_bias(weights.expand(2, 2), tokens.mass).exp().sum((1, 2))
        torch.testing.assert_close(total, torch.full((2,), 72.0))


@torch.inference_mode()
def test_where_the_query_shows_the_counterexample_the_dense_prior_falls_and_it_rises_nowhere(model):
    images, masks, _ = episode(tasks=1)
    look_alike = images[:, 0].flip(3)
    state = model.encode_support(images, masks)
    beside = state.beside(model.encode_counterexample(look_alike, torch.ones(1, 96, 96)))
    mid = Vectors.measured(model.backbone(look_alike).mid)
    weights, temperature = torch.ones(1, 1), torch.tensor(0.05)
    before, after = (
        dense_prior(token_affinity(mid, s.tokens.mid, temperature), s.tokens.side, token_bias(weights, s.tokens.mass))
        for s in (state, beside)
    )
    assert (after <= before + 1e-6).all()
    assert after.mean() < 0.8 * before.mean()


def test_hand_drawn_supports_and_counterexamples_reach_the_step(bank: FeatureBank):
    bank.config = TINY.changed({"episodes.hand_drawn": 1.0, "episodes.counterexamples": 1.0})
    rng = random.Random(0)
    episodes = [sources._episode(bank, None, 1, rng, counter=True) for _ in range(6)]
    batch = sources._bank_batch(bank, episodes, 1, [random.Random(i) for i in range(6)])
    exact = np.stack([e.mask(e.supports[0]) for e in episodes])
    assert (batch.support_target.numpy() != exact).any((1, 2)).sum() >= 4
    assert ((batch.support_target == 1).flatten(1).any(1)).all()
    assert np.array_equal(batch.target.numpy(), np.stack([e.mask(e.query) for e in episodes]))
    if batch.counterexample is None:
        batch = replace(
            batch, counterexample=batch.query, counterexample_known=torch.ones(6, SIDE, SIDE, dtype=torch.bool)
        )
    step = TrainingStep(IIR(TINY.model).train(), TINY)
    loss, _ = step(batch)
    loss.backward()
    assert torch.isfinite(loss)


def view(*objects: tuple[str, slice]) -> PackedView:
    """A view of objects that span rows."""
    masks = np.zeros((len(objects), SIDE, SIDE), np.uint8)
    for mask, (_, rows) in zip(masks, objects, strict=True):
        mask[rows] = 1
    keys = tuple(("parts", name) for name, _ in objects)
    photo = f"parts/{random.random()}"
    return PackedView(
        keys,
        tuple(frozenset({photo}) for _ in keys),
        np.packbits(masks.reshape(len(objects), -1), axis=1),
        {},
        frozenset(keys),
        frozenset(keys),
        photo,
        frozenset(),
    )


def test_a_counterexample_shows_what_lies_beside_the_object_and_never_a_part_of_it():
    lid, pot, eye = ("lid", slice(0, 8)), ("pot", slice(10, 30)), ("eye", slice(2, 6))
    views = [view(lid, pot, eye), view(lid, pot, eye), view(pot), view(eye, pot), view(lid)]
    bank = FeatureBank(TINY.changed({"bank.views": len(views)}), torch.device("cpu"))
    for each in views:
        bank._list(each)
    drawn = [bank.draw_counterexample(("parts", "lid"), 0, random.Random(i)) for i in range(60)]
    shown = [d for d in drawn if d is not None]
    assert {slot for slot, _ in shown} <= {1, 2, 3}
    assert len(shown) > 20
    for slot, known in shown:
        assert np.array_equal(known, bank.mask(slot, ("parts", "pot")) == 1)
        assert not (known & (bank.mask(slot, ("parts", "lid")) == 1)).any()
