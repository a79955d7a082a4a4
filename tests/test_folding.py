"""Folded batch norms: the same features, and a model that is left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iir_sdk.engines.folding import with_folded_norms
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR

IMAGES = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))


def model(backbone: str) -> IIR:
    torch.manual_seed(0)
    built = IIR(ModelConfig(backbone=backbone, width=8, blocks=1, cross_blocks=1, heads=1, head_width=8)).eval()
    for module in built.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Untrained norms change nothing, which would hide a wrong folding.
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return built


@pytest.mark.parametrize("backbone", ["test_efficientnet", "tf_efficientnet_lite0", "resnet18", "mobilenetv2_050"])
@torch.inference_mode()
def test_folded_backbones_give_the_same_taps_and_pooled_map(backbone):
    original = model(backbone)
    folded = with_folded_norms(original)
    assert folded is not original
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.backbone.modules())
    ours, theirs = folded.backbone(IMAGES), original.backbone(IMAGES)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    pooled = [m.backbone.pooled_map(theirs.high) for m in (folded, original)]
    torch.testing.assert_close(*pooled, atol=1e-3, rtol=1e-3)


def test_the_model_keeps_its_own_weights_and_shares_its_decoder():
    original = model("test_efficientnet")
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    folded = with_folded_norms(original)
    assert folded.decoder is original.decoder
    assert original.state_dict().keys() == before.keys()
    for name, tensor in original.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_a_network_that_runs_in_another_order_is_left_as_it_is():
    original = model("test_efficientnet")
    # Something runs between a convolution and the norm that is listed next: folding would be wrong.
    stem = next(m for m in original.backbone.modules() if isinstance(m, nn.Conv2d))
    stem.register_forward_hook(lambda module, inputs, output: output + 1)
    assert with_folded_norms(original) is original


def test_a_network_that_takes_other_sizes_only_is_left_as_it_is():
    original = model("test_efficientnet")

    def refuse(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert inputs[0].shape[-1] % 7 == 0, "windows of 7"

    original.backbone.register_forward_pre_hook(refuse)
    assert with_folded_norms(original) is original


def test_a_network_without_batch_norms_is_left_as_it_is():
    original = model("test_vit")
    assert with_folded_norms(original) is original
