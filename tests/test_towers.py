"""Two networks as one backbone: taps, the transformer's own steps, weights, masks in every runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from iir_sdk import FewShotSegmenter
from iir_sdk.engines.folding import with_folded_norms
from iir_sdk.errors import ConfigError, WeightsError
from iir_sdk.model.backbone import create_network
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.model.towers import TowersBackbone, build_backbone, resampled_positions
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.torchvision_import import imported_timm
from iir_sdk.training import convert
from iir_sdk.training.convert import load_backbone_weights
from iir_sdk.weights.checkpoint_file import save_checkpoint

SMALL = "test_efficientnet+test_vit"
"""A CNN with 32, 48 and 64 channels at its taps, and six blocks of width 64."""


def small_config(**changes: object) -> ModelConfig:
    settings = {"preset": "light", "width": 16, "blocks": 2, "cross_blocks": 1, "head_width": 8, "presence": True}
    return ModelConfig(**{"backbone": SMALL, **settings, **changes})


@pytest.fixture(scope="module")
def towers() -> TowersBackbone:
    torch.manual_seed(0)
    backbone = build_backbone(SMALL)
    assert isinstance(backbone, TowersBackbone)
    return backbone


def test_the_default_towers_have_their_taps():
    """The CNN's head is not built."""
    backbone = build_backbone("tf_efficientnet_lite2+vit_tiny_patch16_224")
    assert backbone.channels == (48, 120, 736)
    assert sum(p.numel() for p in backbone.parameters()) == 10_075_368
    with torch.inference_mode():
        taps = backbone(torch.randn(1, 3, 384, 384))
    assert [tuple(t.shape) for t in taps] == [(1, 48, 48, 48), (1, 120, 24, 24), (1, 736, 16, 16)]


@pytest.mark.parametrize(("size", "high"), [((96, 160), (4, 7)), ((64, 64), (3, 3)), ((480, 384), (20, 16))])
def test_any_size_and_shape(towers, size, high):
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        taps = towers(images)
        assert [t.shape[1:] for t in taps] == [
            (32, size[0] // 8, size[1] // 8),
            (48, size[0] // 16, size[1] // 16),
            (192, *high),
        ]
        assert towers.check_order(images)
        # A cosine counts all three maps alike: their vectors are as long as each other's, position by position.
        stage, middle, last = taps.high.split(64, 1)
        torch.testing.assert_close(stage.norm(dim=1), last.norm(dim=1))
        torch.testing.assert_close(middle.norm(dim=1), last.norm(dim=1))
        torch.testing.assert_close(towers.pooled_map(taps.high), last)
        with torch.autocast("cpu", torch.bfloat16):
            lowered = towers(images)
    assert ((lowered.high.float() - taps.high).norm() / taps.high.norm()) < 0.05


@pytest.mark.parametrize("size", [(14, 14), (20, 20), (16, 24), (8, 10), (3, 30)])
def test_positions_are_resampled_as_timm_does_it(size):
    positions = torch.randn(1, 197, 8)
    expected = imported_timm().layers.resample_abs_pos_embed(positions, list(size))[:, 1:]
    resampled = resampled_positions(positions[:, 1:], size)
    torch.testing.assert_close(resampled, expected, atol=2e-5, rtol=1e-5)
    if size == (14, 14):
        assert torch.equal(resampled, positions[:, 1:])


def test_check_order_notices_other_steps(towers):
    changed = build_backbone(SMALL)
    changed.vit.norm_pre = torch.nn.LayerNorm(64)
    changed.vit.pos_drop = torch.nn.Dropout(0.5).train()
    with torch.inference_mode():
        assert not changed.check_order(torch.randn(1, 3, 96, 96))


def test_the_head_reads_the_object_against_its_surroundings(towers):
    images, mask = torch.randn(1, 3, 96, 96), torch.zeros(1, 1, 96, 96)
    mask[..., :48] = 1
    with torch.inference_mode():
        _, mid, high = towers(images)
        object_map = towers.object_map(mid, high, mask)
        last = towers.pooled_map(high)
        expected = last[..., :2].mean((2, 3)) - last[..., 2:].mean((2, 3))
        torch.testing.assert_close(towers.pre_logits(object_map), expected)
        torch.testing.assert_close(towers.logits(object_map), towers.classifier(expected))
    assert towers.class_weight.shape == (1000, 64)


def test_frozen_in_evaluation_mode_and_foldable(towers):
    model = IIR(small_config()).train()
    assert not any(m.training for m in model.backbone.modules())
    assert not any(p.requires_grad for p in model.backbone.parameters())
    folded = with_folded_norms(model.eval())
    assert folded.backbone is not model.backbone
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        for one, other in zip(folded.backbone(images), model.backbone(images), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["test_efficientnet+test_efficientnet", "test_vit+test_vit", "test_vit+a+b", "a/b+c"])
def test_names_that_are_no_towers_are_refused(name):
    with pytest.raises(ConfigError, match=r"test_|backbone="):
        build_backbone(ModelConfig(backbone=name).backbone)


def test_grad_cam_needs_one_network(towers):
    with pytest.raises(ConfigError, match="closed_form"):
        ModelConfig(backbone=SMALL, cam="grad")
    with pytest.raises(ConfigError, match="closed_form"):
        towers.high_from_mid(torch.randn(1, 48, 4, 4))


def test_weights_come_from_a_file_of_either_tower(tmp_path, monkeypatch):
    nets = {name: create_network(name) for name in SMALL.split("+")}
    monkeypatch.setattr(convert, "_published_weights", lambda name, classes: nets[name].state_dict())
    for name in nets:
        given = create_network(name).state_dict()
        file = tmp_path / f"{name}.safetensors"
        save_file({k: t.contiguous() for k, t in given.items()}, file)
        backbone = build_backbone(SMALL)
        load_backbone_weights(backbone, SMALL, file)
        for tower, part in zip(nets, (backbone.cnn, backbone.vit), strict=True):
            whole = given if tower == name else nets[tower].state_dict()
            for key, tensor in part.state_dict().items():
                assert torch.equal(tensor, whole[key]), (name, tower, key)
    save_file({"strange": torch.zeros(3)}, tmp_path / "strange.safetensors")
    with pytest.raises(WeightsError, match="neither test_efficientnet nor test_vit"):
        load_backbone_weights(build_backbone(SMALL), SMALL, tmp_path / "strange.safetensors")


def test_every_runtime_gives_the_same_masks(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    # What a counterexample takes is steep: of few random channels float16's last bit is 0.02 of probability.
    monkeypatch.setattr("iir_sdk.engines.onnx.export.LARGEST_DIFFERENCE", 0.05)
    torch.manual_seed(0)
    save_checkpoint(IIR(small_config()), Preprocessing(size=128, support_size=96), tmp_path / "w.safetensors")
    rng = np.random.default_rng(0)
    pictures, mask = rng.integers(0, 256, (2, 90, 120, 3)).astype(np.uint8), np.zeros((90, 120), bool)
    mask[20:60, 30:80] = True
    maps = []
    for backend in ("torch", "onnxruntime", "openvino"):
        segmenter = FewShotSegmenter(tmp_path / "w.safetensors", backend=backend)
        for shot in range(2):
            segmenter.add_support(pictures[0], np.roll(mask, 7 * shot, 1))
        maps.append(segmenter.predict(pictures[1]).probabilities)
    for probabilities in maps[1:]:
        np.testing.assert_allclose(probabilities, maps[0], atol=1e-4)
