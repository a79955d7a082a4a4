"""What is trained before the decoder: the base learner, and the classifier on its own masked answers."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors import safe_open

from iir_sdk.data.folder import join_sets, read_picture_sets
from iir_sdk.errors import ConfigError, OutputError
from iir_sdk.model.iir import IIR
from iir_sdk.model.towers import build_backbone
from iir_sdk.training import start
from iir_sdk.training.pretrain import (
    LabelledPictures,
    adapt_classifier,
    adaptation_loss,
    pretrain_base_learner,
    save_part,
)
from tests import small_vgg  # noqa: F401
from tests.command import output_of
from tests.test_loop import PICTURES, random_backbone  # noqa: F401


@pytest.fixture
def dataset(picture_folder):
    return join_sets(read_picture_sets(picture_folder))


def test_labels_hold_all_classes_at_once(dataset):
    pictures = LabelledPictures(dataset, PICTURES)
    assert pictures.names == ("coco/cat", "coco/dog", "coins/coin")
    seen = set()
    for number in range(30):
        image, labels = pictures[number]
        assert image.shape == (3, 64, 64)
        assert labels.shape == (64, 64)
        seen |= set(labels.unique().tolist())
    assert seen == {0, 1, 2, 3, -1}
    assert torch.equal(pictures[4].labels, LabelledPictures(dataset, PICTURES)[4].labels)


class ManyClasses:
    """Picture ``i`` shows class ``i`` in its middle."""

    name = "many"
    classes = MappingProxyType({f"class {i:03d}": (str(i),) for i in range(300)})

    def picture(self, key: str) -> np.ndarray:
        return np.zeros((80, 80, 3), np.uint8)

    def mask(self, name: str, key: str) -> np.ndarray:
        mask = np.zeros((80, 80), np.uint8)
        mask[20:60, 20:60] = 1
        mask[60:, :] = 255
        return mask


def test_there_may_be_more_classes_than_a_byte_holds():
    pictures, found = LabelledPictures(ManyClasses(), PICTURES), set()
    for number in range(400):
        labels = pictures[number].labels
        (own,) = set(labels.unique().tolist()) - {0, -1}
        assert (labels == own).float().mean() > 0.2
        found.add(own)
    assert found <= set(range(1, 301))
    assert set(range(250, 262)) & found
    assert max(found) > 290
    pictures.keys = ["254"]
    assert set(pictures[0].labels.unique().tolist()) <= {0, 255, -1}
    assert 255 in pictures[0].labels.unique()


def test_the_module_can_be_the_first_one_imported():
    subprocess.run([sys.executable, "-c", "import iir_sdk.training.pretrain"], check=True)


def test_the_base_learner_learns_and_the_backbone_does_not(dataset):
    torch.manual_seed(0)
    backbone = build_backbone("test_efficientnet")
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    learner, losses = pretrain_base_learner(
        backbone,
        dataset,
        PICTURES.changed({"episodes.batch": 4}),
        steps=30,
        learning_rate=0.05,
        device=torch.device("cpu"),
    )
    assert learner.classify[-1].out_channels == 4
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert all(torch.equal(t, before[n]) for n, t in backbone.state_dict().items())


def test_the_adaptations_loss_equals_its_formula():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(4, 7)), rng.normal(size=(4, 7))

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    entropy = -np.mean([math.log(softmax(student)[i, teacher[i].argmax()]) for i in range(4)])
    p, q = softmax(teacher / 3), softmax(student / 3)
    divergence = np.mean([(p[i] * np.log(p[i] / q[i])).sum() for i in range(4)])
    found = adaptation_loss(torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(found) == pytest.approx(entropy + 9 * divergence)


@pytest.mark.parametrize("name", ["test_efficientnet", "small_vgg_bn"])
def test_only_the_classifier_adapts(dataset, name):
    torch.manual_seed(0)
    backbone = build_backbone(name)
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    weight = backbone.classifier.weight.clone()
    losses = adapt_classifier(backbone, dataset, PICTURES, steps=8, learning_rate=0.1, device=torch.device("cpu"))
    assert np.isfinite(losses).all()
    assert not torch.equal(weight, backbone.classifier.weight)
    changed = {n for n, t in backbone.state_dict().items() if not torch.equal(t, before[n])}
    assert len(changed) == 2
    assert not any(p.requires_grad for p in backbone.parameters())


def test_pretrained_parts_start_a_run(picture_folder, tmp_path, random_backbone):  # noqa: F811
    config = replace(PICTURES, steps=2)
    for part in ("base-learner", "classifier"):
        recipe = replace(config, model=replace(config.model, base_classes=3 if part == "base-learner" else 0))
        start.run_pretraining(part, recipe, picture_folder, tmp_path / f"{part}.safetensors", steps=2, device="cpu")
    with safe_open(tmp_path / "base-learner.safetensors", framework="pt") as stored:
        assert stored.metadata()["classes"].splitlines() == ["coco/cat", "coco/dog", "coins/coin"]
    with_base = replace(config, model=replace(config.model, base_classes=3))
    with pytest.raises(ConfigError, match="--base-learner"):
        start.build_trainer(with_base, picture_folder, tmp_path / "none", device="cpu", workers=0)
    with pytest.raises(ConfigError, match="has no base learner"):
        unused = start.TrainedParts(base_learner=tmp_path / "base-learner.safetensors")
        start.build_trainer(config, picture_folder, tmp_path / "none", parts=unused, device="cpu", workers=0)
    parts = start.TrainedParts(None, tmp_path / "classifier.safetensors", tmp_path / "base-learner.safetensors")
    trainer = start.build_trainer(with_base, picture_folder, tmp_path / "run", parts=parts, device="cpu", workers=0)
    before = {n: t.clone() for n, t in trainer.model.base_learner.state_dict().items()}
    trainer.run()
    assert all(torch.equal(t, before[n]) for n, t in trainer.model.base_learner.state_dict().items())
    fresh = IIR(with_base.model)
    random = build_backbone("test_efficientnet")
    assert not torch.equal(trainer.model.backbone.classifier.weight, random.classifier.weight)
    assert fresh.base_learner is not None
    fewer = tmp_path / "fewer.safetensors"
    save_part(trainer.model.base_learner, fewer, ("coco/cat", "coco/dog", "coco/cow"))
    with pytest.raises(ConfigError, match=r"other classes.*coco/cow.*another fold"):
        wrong_parts = start.TrainedParts(base_learner=fewer)
        start.build_trainer(with_base, picture_folder, tmp_path / "no", parts=wrong_parts, device="cpu", workers=0)
    with pytest.raises(ConfigError, match="base_classes=5, the data 3"):
        wrong = replace(config, model=replace(config.model, base_classes=5))
        start.run_pretraining("base-learner", wrong, picture_folder, tmp_path / "x.safetensors", steps=1, device="cpu")


def test_the_command(picture_folder, tmp_path, random_backbone):  # noqa: F811
    settings = [
        "model.base_classes=3",
        "source=pictures",
        "episodes.regions=0",
        "episodes.shared_regions=0",
        "model.backbone=test_efficientnet",
        "pictures.view_size=64",
        "episodes.batch=2",
        "episodes.shots=[1]",
    ]
    arguments = ["pretrain", "--data", picture_folder, "--out", tmp_path / "b.safetensors", "--steps", 2]
    arguments += ["--part", "base-learner", "--workers", 0, "--device", "cpu"]
    arguments += [part for setting in settings for part in ("--set", setting)]
    assert "the base-learner is" in output_of(*arguments)
    assert (tmp_path / "b.safetensors").is_file()
    assert "--steps" in output_of(*arguments, "--steps", 0, code=2)


def test_a_place_that_cannot_be_written_is_refused_before_any_training(picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "build_model", lambda *_: pytest.fail("trained"))
    with pytest.raises(OutputError, match="no folder"):
        start.run_pretraining("classifier", PICTURES, picture_folder, tmp_path / "none" / "c.safetensors", steps=1)
