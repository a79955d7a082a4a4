"""The paper's own configurations: shapes at their own size; of one small training step, which parameters it reaches."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from iir_sdk.engines.devices import computes_in_bfloat16
from iir_sdk.errors import ConfigError, WeightsError
from iir_sdk.model.backbone import VitBackbone
from iir_sdk.model.base_learner import BackgroundMerge, BaseLearner
from iir_sdk.model.cam import class_activation, closed_form_cam, proxy_class
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.model.towers import build_backbone
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.training.config import find_recipe, read_recipe
from iir_sdk.training.convert import load_classifier, load_in_order
from iir_sdk.training.run.step import EpisodeBatch, TrainingStep
from iir_sdk.weights.checkpoint_file import read_checkpoint, save_checkpoint

ONE_SHOT_ONLY = {"shot_scale_log"}
"""With one shot there is nothing to weigh."""


def one_step(model: IIR, size: int, shots: int, *, precision: str = "float32") -> tuple[float, set[str]]:
    """Loss of a random batch of one, and the decoder's parameters that got no gradient."""
    config = replace(read_recipe(find_recipe("pascal")), model=model.config)
    images = torch.randn(shots + 1, 3, size, size)
    mask = torch.zeros(shots, size, size, dtype=torch.int64)
    mask[:, size // 4 : size // 2, size // 4 : size // 2], mask[:, :5] = 1, 255
    target = torch.zeros(1, size, size, dtype=torch.int64)
    target[:, : size // 3, : size // 2], target[:, -5:] = 1, 255
    # A CPU without bfloat16 emulates it: the same step takes minutes instead of seconds.
    lowered = precision == "bfloat16" and computes_in_bfloat16(torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        with torch.no_grad():
            taps = model.backbone(images)
        taps = type(taps)(*(t.float().contiguous() for t in taps))
        support, query = (type(taps)(*(t[part] for t in taps)) for part in (slice(0, shots), slice(shots, None)))
        own = torch.zeros(1, dtype=torch.int64) if model.config.base_classes else None
        loss, _ = TrainingStep(model, config)(EpisodeBatch(support, mask, query, target, shots, own))
    loss.backward()
    silent = {n for n, p in model.decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    return float(loss.detach()), silent


def shapes_at_own_size(recipe: str) -> tuple[int, list[tuple[int, ...]], tuple[int, ...]]:
    """The recipe's input size, and of its network the taps' shapes there and channels; nothing is computed."""
    config = read_recipe(find_recipe(recipe))
    side = config.preprocessing.size
    with torch.device("meta"):
        model = IIR(config.model)
        taps = model.backbone(torch.randn(1, 3, side, side))
    return side, [tuple(t.shape) for t in taps], model.backbone.channels


@pytest.mark.parametrize(
    ("recipe", "side", "grids", "channels"),
    [
        ("pascal", 473, (60, 30, 15), (512, 1024, 2048)),
        ("coco", 641, (81, 41, 21), (512, 1024, 2048)),
        ("pascal_dinov2", 518, (37, 37, 37), (1024, 2048, 1024)),
    ],
)
def test_the_papers_networks_at_their_own_size(recipe, side, grids, channels):
    shapes = [(1, c, grid, grid) for c, grid in zip(channels, grids, strict=True)]
    assert shapes_at_own_size(recipe) == (side, shapes, channels)


@pytest.mark.parametrize("shots", [1, 2])
def test_resnet50_as_in_the_paper(shots):
    torch.manual_seed(0)
    # As 473 is: odd, and no multiple of any stride.
    model = IIR(read_recipe(find_recipe("pascal")).model).train()
    loss, silent = one_step(model, 121, shots)
    assert np.isfinite(loss)
    assert silent == (ONE_SHOT_ONLY if shots == 1 else set())
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.base_learner is not None
    assert all(p.grad is None for p in model.base_learner.parameters())


def test_dinov2_as_in_the_paper():
    """The smallest network of its kind, with the paper's decoder."""
    torch.manual_seed(0)
    config = read_recipe(find_recipe("pascal_dinov2")).model
    model = IIR(replace(config, backbone="vit_small_patch14_dinov2", base_classes=0)).train()
    loss, silent = one_step(model, 140, 1, precision="bfloat16")
    assert np.isfinite(loss)
    assert silent == ONE_SHOT_ONLY
    assert model.backbone.channels == (384, 768, 384)


# The transformer's adapter


@pytest.fixture(scope="module")
def vit() -> VitBackbone:
    torch.manual_seed(0)
    backbone = build_backbone("vit_tiny_patch16_224")
    assert isinstance(backbone, VitBackbone)
    return backbone


def test_a_transformer_is_split_at_its_taps(vit):
    images = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        taps = vit(images)
        assert [tuple(t.shape) for t in taps] == [(2, 192, 6, 8), (2, 384, 6, 8), (2, 192, 6, 8)]
        assert vit.check_order(images)
        torch.testing.assert_close(vit.high_from_mid(taps.mid), taps.high)
        own = vit.net.forward_features(images)[:, 1:].mean(1)
        torch.testing.assert_close(vit.logits(vit.pooled_map(taps.high)), vit.head(own), atol=1e-5, rtol=1e-4)


def test_a_masked_map_keeps_the_class_token(vit):
    """A mask dims both halves alike; where it is 1 the class token is whole, and so are the patches outside empty."""
    mid = vit(torch.randn(1, 3, 96, 96)).mid
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., 2:4, 2:4] = 1
    tokens = torch.cat([mid[:, 192:, 0, 0][:, None], (mid * mask)[:, :192].flatten(2).transpose(1, 2)], 1)
    for block in vit.net.blocks[9:]:
        tokens = block(tokens)
    expected = vit.net.norm(tokens)[:, 1:].transpose(1, 2).reshape(1, 192, 6, 6)
    torch.testing.assert_close(vit.high_from_mid(mid * mask), expected)


def test_a_transformers_activation_maps(vit):
    torch.manual_seed(1)
    taps = vit(torch.randn(1, 3, 96, 96))
    proxy = proxy_class(vit, taps.mid, taps.high, torch.ones(1, 1, 6, 6))
    own_class = int(vit.logits(vit.pooled_map(taps.high)).argmax())
    assert int(proxy.index[0]) == own_class
    closed = class_activation(vit, taps.mid, vit.pooled_map(taps.high), proxy)
    torch.testing.assert_close(closed, closed_form_cam(taps.high, proxy.weight[:, None]))
    grad = class_activation(vit, taps.mid, None, proxy)
    assert grad.shape == (1, 1, 6, 6)
    assert grad.max() > 0


def test_networks_that_are_no_plain_transformers():
    with pytest.raises(ConfigError, match="it has no cls_token"):
        build_backbone("vit_medium_patch16_gap_256")
    with pytest.raises(ConfigError, match="is not a timm model name"):
        build_backbone("vit_of_dreams")


def test_a_transformer_without_a_head_is_not_trained_on_a_random_one(monkeypatch):
    from iir_sdk.training import start

    monkeypatch.setattr(start, "load_backbone_weights", lambda *arguments: None)
    config = read_recipe(find_recipe("pascal_dinov2")).changed({"pictures.view_size": 96})
    config = replace(config, model=replace(config.model, backbone="vit_tiny_patch16_224", base_classes=0))
    with pytest.raises(ConfigError, match="--classifier"):
        start.build_model(config, start.TrainedParts())


def test_a_transformers_checkpoint_round_trips(tmp_path):
    torch.manual_seed(0)
    config = ModelConfig(backbone="vit_tiny_patch16_224", width=16, blocks=1, cross_blocks=1, head_width=8)
    model = IIR(config).eval()
    save_checkpoint(model, Preprocessing(size=96, support_size=96), tmp_path / "vit.safetensors")
    loaded = read_checkpoint(tmp_path / "vit.safetensors").model
    images, mask = torch.randn(1, 1, 3, 96, 96), torch.ones(1, 1, 96, 96)
    mask[..., :40] = 0
    with torch.inference_mode():
        states = [m.encode_support(images, mask) for m in (model, loaded)]
        found = [m(images[0], s).logits for m, s in zip((model, loaded), states, strict=True)]
    torch.testing.assert_close(*found, atol=0.05, rtol=0.05)


# The base learner


def test_the_merge_starts_as_the_identity_and_can_suppress():
    torch.manual_seed(0)
    merge, logits = BackgroundMerge(), torch.randn(2, 2, 8, 8)
    base = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(merge(logits, base).softmax(1), logits.softmax(1), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        merge.mix.weight[0, 1] = 5.0
    certain = merge(logits, torch.ones(2, 1, 4, 4)).softmax(1)[:, 1]
    assert (certain < logits.softmax(1)[:, 1]).all()


def test_the_base_learners_probability_is_the_sum_over_its_classes():
    torch.manual_seed(0)
    backbone = build_backbone("test_efficientnet")
    learner = BaseLearner(backbone.channels, 5).eval()
    with torch.inference_mode():
        taps = backbone(torch.randn(2, 3, 96, 96))
        logits = learner(taps)
        assert logits.shape == (2, 6, 6, 6)
        expected = logits.softmax(1)[:, 1:].sum(1, keepdim=True)
        torch.testing.assert_close(learner.base_probability(taps), expected, atol=1e-5, rtol=1e-4)
        without = learner.base_probability(taps, torch.tensor([4, 0]))
        for i, own in enumerate((4, 0)):
            rest = expected[i] - logits.softmax(1)[i, own + 1]
            torch.testing.assert_close(without[i], rest, atol=1e-5, rtol=1e-4)


def test_the_base_learner_draws_no_dropout_while_the_decoder_trains():
    model = IIR(
        ModelConfig(backbone="test_efficientnet", width=16, blocks=1, cross_blocks=1, head_width=8, base_classes=2)
    )
    model.train()
    assert model.decoder.training
    assert model.base_learner is not None
    assert not any(m.training for m in model.base_learner.modules())


def test_a_model_with_a_base_learner_round_trips_and_trains_its_merge(tmp_path):
    torch.manual_seed(0)
    config = ModelConfig(
        backbone="test_efficientnet", width=16, blocks=1, cross_blocks=1, head_width=8, base_classes=3, dropout=0.0
    )
    model = IIR(config).train()
    _, silent = one_step(model, 96, 2)
    assert silent == set()
    assert model.decoder.merge.mix.weight.grad is not None
    save_checkpoint(model, Preprocessing(size=96), tmp_path / "m.safetensors")
    assert read_checkpoint(tmp_path / "m.safetensors").model.base_learner is not None


# Single prototypes


def test_a_single_prototype_is_the_whole_masks():
    torch.manual_seed(0)
    config = ModelConfig(backbone="test_efficientnet", width=16, blocks=1, cross_blocks=1, head_width=8)
    images, mask = torch.randn(1, 1, 3, 96, 96), torch.zeros(1, 1, 96, 96)
    mask[..., 20:60, 20:60] = 1
    dual = IIR(config).eval()
    single = IIR(replace(config, prototypes="single")).eval()
    with torch.no_grad():
        # The state keeps what prototypes add to the fusion: alike where both of its parts are.
        weight = dual.decoder.fuse_query.weight
        weight[:, 32:48] = weight[:, 16:32]
    single.load_state_dict(dual.state_dict())
    with torch.inference_mode():
        state = single.encode_support(images, mask)
        torch.testing.assert_close(state.fused.core, state.fused.whole)
        torch.testing.assert_close(state.fused.local, state.fused.whole)
        both = dual.encode_support(images, mask)
    assert not torch.allclose(both.fused.core, both.fused.local)


# Weights from elsewhere


def test_a_classifier_on_class_and_patch_tokens_gives_its_second_half(vit, tmp_path):
    weight, bias = torch.randn(1000, 384), torch.randn(1000)
    torch.save({"linear.weight": weight, "linear.bias": bias}, tmp_path / "head.pth")
    load_classifier(vit, tmp_path / "head.pth")
    assert torch.equal(vit.head.weight, weight[:, 192:])
    assert torch.equal(vit.head.bias, bias)
    torch.save({"weight": torch.randn(10, 192), "bias": torch.randn(10)}, tmp_path / "ten.pth")
    with pytest.raises(WeightsError, match=r"expected weight \(1000, 192\)"):
        load_classifier(vit, tmp_path / "ten.pth")
    torch.save({"weight": nn.Linear(2, 2)}, tmp_path / "code.pth")
    with pytest.raises(WeightsError, match="more than weights"):
        load_classifier(vit, tmp_path / "code.pth")


def test_weights_load_by_name_in_any_order_or_in_order_under_other_names():
    torch.manual_seed(0)
    net, other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    names = list(other.state_dict())
    random.Random(0).shuffle(names)
    load_in_order(net, {n: other.state_dict()[n] for n in names})
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in net.state_dict().items())
    load_in_order(net, {f"x{i}": t + 1 for i, t in enumerate(other.state_dict().values())})
    assert torch.equal(net[0].weight, other[0].weight + 1)
    with pytest.raises(WeightsError, match="expected 4 tensors, got 1"):
        load_in_order(net, {"a": torch.zeros(1)})


def test_recipes_name_what_their_base_learner_lacks(tmp_path, monkeypatch):
    from iir_sdk.training import start

    monkeypatch.setattr(start, "load_backbone_weights", lambda *arguments: None)
    config = read_recipe(find_recipe("pascal")).changed({"pictures.view_size": 96})
    with pytest.raises(ConfigError, match=r"iir-sdk pretrain.*--base-learner.*model\.base_classes=0"):
        start.build_model(config, start.TrainedParts())


@pytest.mark.parametrize(("capability", "able"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_card_that_emulates_bfloat16_does_not_compute_in_it(monkeypatch, capability, able):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert computes_in_bfloat16(torch.device("cuda", 1)) is able
