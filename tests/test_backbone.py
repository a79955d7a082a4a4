"""The adapter on three families: taps, split at the taps, head."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from iir_sdk.errors import ConfigError
from iir_sdk.model.backbone import Backbone, create_network
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.weights.checkpoint_file import save_checkpoint
from iir_sdk.weights.resolve import load_checkpoint
from tests import small_vgg  # noqa: F401

FAMILIES = {
    "tf_efficientnet_lite2": ((48, 120, 352), True),
    "resnet50": ((512, 1024, 2048), True),
    "small_vgg_bn": ((24, 32, 32), False),
    "mobilenetv3_large_100": ((40, 112, 960), False),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_taps_split_and_head(name):
    channels, closed_form = FAMILIES[name]
    torch.manual_seed(0)
    backbone = Backbone(name)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        taps = backbone(images)
        assert backbone.channels == channels
        assert [tuple(t.shape) for t in taps] == [(1, c, s, s) for c, s in zip(channels, (28, 14, 7), strict=True)]
        assert backbone.check_order(images)
        torch.testing.assert_close(backbone.high_from_mid(taps.mid), taps.high)
        logits = backbone.logits(backbone.pooled_map(taps.high))
        torch.testing.assert_close(logits, backbone.net(images), atol=1e-4, rtol=1e-3)
    assert backbone.supports_closed_form == closed_form


def test_the_papers_vgg_has_its_taps():
    """Shapes alone: most of its 138 million parameters are in the head."""
    with torch.device("meta"):
        backbone = Backbone("vgg16_bn")
        taps = backbone(torch.randn(1, 3, 224, 224))
        assert backbone.logits(backbone.pooled_map(taps.high)).shape == (1, 1000)
    assert [tuple(t.shape) for t in taps] == [(1, 512, side, side) for side in (28, 14, 7)]
    assert not backbone.supports_closed_form


def test_check_order_notices_a_wrong_split():
    backbone = Backbone("resnet50")
    backbone._after_mid = []
    with torch.inference_mode(), pytest.raises((RuntimeError, AssertionError)):
        # Without its last stage the map has neither the shape nor the channels of the network's own features.
        assert backbone.check_order(torch.randn(1, 3, 64, 64))


def test_the_backbone_is_frozen_and_stays_in_evaluation_mode():
    model = IIR(ModelConfig(width=16, blocks=1, cross_blocks=1, heads=2)).train()
    assert model.decoder.training
    assert not any(module.training for module in model.backbone.modules())
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_a_network_without_a_linear_classifier_is_refused(monkeypatch):
    headless = partial(create_network, num_classes=0)
    monkeypatch.setattr("iir_sdk.model.backbone.create_network", headless)
    with pytest.raises(ConfigError, match="'resnet50' has no linear classifier"):
        Backbone("resnet50")


def test_unknown_name_says_where_to_look():
    with pytest.raises(ConfigError, match="list_models"):
        Backbone("resnet_of_dreams")


@pytest.mark.parametrize("name", ["xception41", "selecsls42"])
def test_a_network_that_cannot_be_split_is_refused(name):
    with pytest.raises(ConfigError, match=f"'{name}'"):
        Backbone(name)


def test_buffers_that_no_file_stores_are_made(tmp_path):
    model = IIR(ModelConfig(backbone="resnetblur18", width=16, blocks=1, cross_blocks=1, head_width=8)).eval()
    assert set(dict(model.named_buffers())) - set(model.state_dict())
    save_checkpoint(model, Preprocessing(size=64), tmp_path / "blur.safetensors")
    loaded = load_checkpoint(tmp_path / "blur.safetensors").model
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.backbone(image).high, model.backbone(image).high, atol=1e-2, rtol=1e-2)


def test_closed_form_on_a_nonlinear_head_is_refused():
    with pytest.raises(ConfigError, match="cam='grad'"):
        IIR(ModelConfig(backbone="small_vgg_bn"))


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 0},
        {"width": 100000},
        {"heads": 3},
        {"cross_blocks": 9},
        {"dropout": 1.0},
        {"cam": "magic"},
        {"head_width": 12},
        {"preset": "heavy"},
        {"presence": True, "cam": "grad"},
    ],
)
def test_config_refuses_what_cannot_be_built(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ModelConfig(**bad)


def test_config_refuses_unknown_keys_and_wrong_kinds():
    with pytest.raises(ConfigError, match="depth"):
        ModelConfig.from_dict({"depth": 3})
    with pytest.raises(ConfigError, match="unknown key 'head_widht'; did you mean 'head_width'"):
        ModelConfig.from_dict({"head_widht": 8})
    with pytest.raises(ConfigError, match="width"):
        ModelConfig.from_dict({"width": "128"})
    assert ModelConfig.from_dict(ModelConfig(width=64).to_dict()) == ModelConfig(width=64)
