"""The network as a whole: kept states, shots, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from iir_sdk.model.config import ModelConfig
from iir_sdk.model.encodings import SupportState
from iir_sdk.model.iir import IIR, Prediction
from iir_sdk.supports.encoded import EncodedSupport, join_shots, join_tasks
from tests import small_vgg  # noqa: F401

SMALL = ModelConfig(preset="paper", width=16, blocks=2, cross_blocks=1, heads=2, head_width=8)
LIGHT = replace(SMALL, preset="light", blocks=3, cross_blocks=2)
WHOLE = replace(LIGHT, presence=True)


def kept(state: SupportState, task: int) -> EncodedSupport:
    """One task's arrays, as the segmenter keeps them but for their precision."""
    return EncodedSupport.from_arrays({n: t[task : task + 1].numpy() for n, t in state.arrays().items()})


def revived(state: EncodedSupport) -> SupportState:
    return SupportState.from_arrays({n: torch.from_numpy(a.copy()) for n, a in state.arrays().items()})


def assert_same(one: Prediction, other: Prediction, **tolerance: float) -> None:
    """Logits, priors and, where there is a head for them, scores."""
    torch.testing.assert_close(one.logits, other.logits, **tolerance)
    torch.testing.assert_close(one.prior, other.prior, **tolerance)
    assert (one.scores is None) == (other.scores is None)
    if one.scores is not None:
        torch.testing.assert_close(one.scores, other.scores, **tolerance)


def episode(tasks: int = 2, shots: int = 1, side: int = 96) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(tasks, shots, 3, side, side, generator=generator)
    masks = torch.zeros(tasks, shots, side, side)
    for t in range(tasks):
        for k in range(shots):
            masks[t, k, 10 + 5 * k : 50, 20 : 60 + 7 * t] = 1
    return images, masks, torch.randn(tasks, 3, side, side, generator=generator)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, cam="grad"),
        replace(SMALL, cross_blocks=2, presence=True),
        replace(SMALL, cross_blocks=0),
        replace(SMALL, backbone="resnet50"),
        LIGHT,
        replace(LIGHT, blocks=2, cam="grad"),
        WHOLE,
        replace(SMALL, backbone="small_vgg_bn", cam="grad"),
    ],
    ids=lambda c: f"{c.backbone}-{c.cam}-{c.cross_blocks}-{c.preset}-{c.presence}",
)
def test_every_architecture_predicts(config):
    torch.manual_seed(0)
    model = IIR(config).eval()
    side = 224 if config.backbone == "small_vgg_bn" else 96
    images, masks, queries = episode(shots=2, side=side)
    with torch.inference_mode():
        found = model(queries, model.encode_support(images, masks))
    assert found.logits.shape == (2, 2, side // 8, side // 8)
    assert found.prior.shape == (2, 1, side // 16, side // 16)
    assert torch.isfinite(found.logits).all()
    assert 0 <= found.prior.min() <= found.prior.max() <= 1
    torch.testing.assert_close(found.shot_weights.sum(1), torch.ones(2))


def test_cached_and_uncached_paths_give_the_same_logits(small_model):
    images, masks, queries = episode()
    with torch.inference_mode():
        kept = small_model.encode_support(images, masks)
        cached = [small_model(queries[i : i + 1], kept.map(lambda t, i=i: t[i : i + 1])).logits for i in range(2)]
        uncached = [
            small_model(queries[i : i + 1], small_model.encode_support(images[i : i + 1], masks[i : i + 1])).logits
            for i in range(2)
        ]
    torch.testing.assert_close(torch.cat(cached), torch.cat(uncached), atol=1e-4, rtol=1e-4)


def test_forward_never_looks_at_a_support_picture_again(small_model):
    images, masks, queries = episode()
    with torch.inference_mode():
        kept = small_model.encode_support(images, masks)
        before = small_model(queries, kept).logits
        images.fill_(torch.nan)
        masks.fill_(torch.nan)
        torch.testing.assert_close(small_model(queries, kept).logits, before, atol=0, rtol=0)


def test_the_support_changes_the_answer(small_model):
    images, masks, queries = episode()
    with torch.inference_mode():
        one = small_model(queries, small_model.encode_support(images, masks)).logits
        other = small_model(queries, small_model.encode_support(images, 1 - masks)).logits
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("config", [SMALL, LIGHT, WHOLE], ids=str)
def test_equal_shots_count_as_one(config):
    torch.manual_seed(0)
    model = IIR(config).eval()
    images, masks, queries = episode()
    with torch.inference_mode():
        state = model.encode_support(images, masks)
        three = revived(join_tasks([join_shots([kept(state, t)] * 3) for t in range(2)]))
        assert three.shots == 3
        assert_same(model(queries, three), model(queries, state), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("config", [SMALL, LIGHT, WHOLE], ids=str)
def test_the_order_of_shots_does_not_matter(config):
    torch.manual_seed(0)
    model = IIR(config).eval()
    images, masks, queries = episode(shots=3)
    with torch.inference_mode():
        state, turned = model.encode_support(images, masks), model.encode_support(images.flip(1), masks.flip(1))
        assert_same(model(queries, turned), model(queries, state), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("config", [SMALL, LIGHT, WHOLE], ids=str)
def test_shots_encoded_apart_or_together_are_the_same(config):
    torch.manual_seed(0)
    model = IIR(config).eval()
    images, masks, _ = episode(shots=3)
    with torch.inference_mode():
        together = model.encode_support(images, masks)
        apart = []
        for t in range(2):
            shots = [model.encode_support(images[t : t + 1, [k]], masks[t : t + 1, [k]]) for k in range(3)]
            apart.append(join_shots([kept(s, 0) for s in shots]))
    for name, array in join_tasks(apart).arrays().items():
        torch.testing.assert_close(torch.from_numpy(array), together.arrays()[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("config", [SMALL, LIGHT, WHOLE], ids=str)
def test_the_layout_of_a_querys_maps_changes_nothing(config):
    torch.manual_seed(0)
    model = IIR(config).eval()
    images, masks, queries = episode(shots=2)
    with torch.inference_mode():
        state = model.encode_support(images, masks)
        taps = model.backbone(queries)
        plain, last = (
            model.decode(type(taps)(*(t.contiguous(memory_format=layout) for t in taps)), state)
            for layout in (torch.contiguous_format, torch.channels_last)
        )
    assert_same(plain, last, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("config", [SMALL, LIGHT, WHOLE], ids=str)
def test_one_query_by_many_tasks_is_each_query_by_its_own(config):
    torch.manual_seed(0)
    model = IIR(config).eval()
    images, masks, queries = episode(tasks=3, shots=2)
    with torch.inference_mode():
        state = model.encode_support(images, masks)
        many = model.decode(model.backbone(queries[:1]), state)
        each = model.decode(model.backbone(queries[:1].expand(3, -1, -1, -1)), state)
    assert_same(many, each, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("config", [SMALL, LIGHT, WHOLE], ids=str)
@pytest.mark.parametrize("shots", [1, 2])
def test_one_task_serves_all_queries(config, shots):
    torch.manual_seed(0)
    model = IIR(config).eval()
    images, masks, queries = episode(shots=shots)
    with torch.inference_mode():
        state = model.encode_support(images[:1], masks[:1])
        batch, singly = model(queries, state), [model(q[None], state) for q in queries]
    for i, single in enumerate(singly):
        scores = None if batch.scores is None else batch.scores[i : i + 1]
        own = replace(batch, logits=batch.logits[i : i + 1], prior=batch.prior[i : i + 1], scores=scores)
        assert_same(own, single, atol=1e-4, rtol=1e-3)


def test_a_state_of_one_shot_may_be_kept_in_half_precision():
    torch.manual_seed(0)
    model = IIR(WHOLE).eval()
    images, masks, queries = episode()
    with torch.inference_mode():
        state = model.encode_support(images, masks)
        halved, whole = model(queries, state.to("cpu", torch.float16)), model(queries, state)
    assert (halved.logits - whole.logits).abs().max() < 0.05


def test_state_round_trips_through_its_arrays(small_model):
    images, masks, _ = episode()
    state = small_model.encode_support(images, masks)
    again = SupportState.from_arrays(state.arrays())
    assert all(torch.equal(a, b) for a, b in zip(state.arrays().values(), again.arrays().values(), strict=True))
    half = state.to("cpu", torch.float16)
    assert half.tokens.keys.dtype == torch.float16
    assert half.proxy.index.dtype == torch.int64
    assert half.nbytes < state.nbytes


@pytest.mark.parametrize("config", [SMALL, LIGHT], ids=str)
def test_directional_dropout_acts_with_labels_only(config):
    torch.manual_seed(0)
    model = IIR(config).eval()
    images, masks, queries = episode()
    labels, unknown = torch.zeros(2, 36, dtype=torch.long), torch.full((2, 36), 255)
    with torch.inference_mode():
        state = model.encode_support(images, masks)
        taps = model.backbone(queries)
        plain, cut = model.decode(taps, state), model.decode(taps, state, labels)
        ignored = model.decode(taps, state, unknown)
    assert plain.auxiliary == ()
    # After fusion and after each block: all of the paper's, the light preset's that look at the support.
    assert len(cut.auxiliary) == 1 + 2
    assert (plain.logits - cut.logits).abs().max() > 1e-6
    torch.testing.assert_close(plain.logits, ignored.logits, atol=1e-5, rtol=1e-5)


def test_a_tiny_object_and_a_huge_one_stay_finite(small_model):
    images, _, queries = episode()
    masks = torch.zeros(2, 1, 96, 96)
    masks[0, 0, 3, 5] = 1
    masks[1] = 1
    masks[1, 0, 95, 95] = 0
    with torch.inference_mode():
        found = small_model(queries, small_model.encode_support(images, masks))
    assert torch.isfinite(found.logits).all()
    assert torch.isfinite(found.prior).all()
