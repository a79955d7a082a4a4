"""Crops to train on keep their object in sight, wherever it is and however small."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iir_sdk.data.dataset import IGNORE
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import DatasetError
from iir_sdk.model.towers import build_backbone
from iir_sdk.training import pretrain
from iir_sdk.training.episode_pictures import EpisodeStream
from iir_sdk.training.object_crop import ObjectCrop
from iir_sdk.training.pretrain import LabelledPictures, adapt_classifier
from tests.test_loop import PICTURES

SIDE = 160
COCO_LIKE = PICTURES.changed({"pictures.view_size": SIDE, "pictures.scale": (0.8, 1.25)})


def cropped(mask: np.ndarray, seed: int, config=COCO_LIKE, image: np.ndarray | None = None):
    pixels = np.zeros((*mask.shape, 3), np.uint8) if image is None else image
    torch.manual_seed(seed)
    return ObjectCrop(config)(torch.from_numpy(pixels.copy()).permute(2, 0, 1), torch.from_numpy(mask))


def places(size: int, height: int = 200, width: int = 400):
    """A square object at nine places of a wide picture, its corners among them."""
    for top in (0, (height - size) // 2, height - size):
        for left in (0, (width - size) // 2, width - size):
            mask = np.zeros((height, width), np.uint8)
            mask[top : top + size, left : left + size] = 1
            yield mask


@pytest.mark.parametrize("size", [1, 8, 24, 60])
def test_an_object_stays_in_sight_wherever_it_is(size):
    shares = []
    for i, mask in enumerate(places(size)):
        for seed in range(6):
            _, target = cropped(mask, 100 * i + seed)
            assert target.shape == (SIDE, SIDE)
            shown = int((target == 1).sum())
            assert shown
            shares.append(shown / (size * SIDE / 200) ** 2)
    # Resized by 0.8 at least, and nearly all of it kept.
    assert size == 1 or min(shares) > 0.85 * 0.8**2 * 0.8


def test_of_an_object_too_wide_for_any_crop_the_largest_part_is_kept():
    mask = np.zeros((100, 400), np.uint8)
    mask[40:60, 20:380] = 1
    for seed in range(10):
        _, target = cropped(mask, seed)
        assert (target == 1).any(0).float().mean() > 0.9


@pytest.mark.parametrize("job", read_jobs()[:3], ids=lambda job: job.name)
def test_picture_and_mask_are_cropped_alike(job):
    mask = job.truth().astype(np.uint8)
    image = np.repeat(255 * mask[..., None], 3, axis=2)
    for seed in range(3):
        crop, target = cropped(mask, seed, image=image)
        bright = crop[0] > 127
        assert ((target == 1) ^ bright)[target != IGNORE].float().mean() < 0.03


def test_nothing_to_keep_is_no_error():
    image, target = cropped(np.full((90, 120), IGNORE, np.uint8), 0)
    assert image.shape == (3, SIDE, SIDE)
    assert (target == IGNORE).all()


class SmallThings:
    """Pictures of 200 x 400 that show a thing of 10 x 10 at one end, in a corner or at an edge."""

    name = "small things"
    classes = {"thing": tuple("abcdef")}  # noqa: RUF012

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def picture(self, key: str) -> np.ndarray:
        return np.random.default_rng(ord(key)).integers(0, 255, (200, 400, 3)).astype(np.uint8)

    def mask(self, name: str, key: str) -> np.ndarray:
        return list(places(self.size))["abcdef".index(key)]


def test_every_query_of_an_epoch_shows_its_object():
    episodes = EpisodeStream(SmallThings(), COCO_LIKE.changed({"episodes.shots": (1,)}))
    for number in range(3 * episodes.epoch_length):
        episode = episodes[number]
        assert (episode.target == 1).any()
        assert (episode.support_mask == 1).any()


def test_the_classifiers_teacher_never_sees_an_empty_map(monkeypatch):
    backbone = build_backbone("test_efficientnet")
    largest = []
    resized = pretrain.resize_mask

    def noted(mask, size):
        shares = resized(mask, size)
        largest.extend(shares.amax((1, 2, 3)).tolist())
        return shares

    monkeypatch.setattr(pretrain, "resize_mask", noted)
    options = {"steps": 4, "device": torch.device("cpu")}
    assert len(adapt_classifier(backbone, SmallThings(40), COCO_LIKE, **options)) == 4
    assert min(largest) >= 0.5


def test_pictures_whose_object_fills_no_cell_teach_nothing(monkeypatch):
    backbone = build_backbone("test_efficientnet")
    before = backbone.classifier.weight.clone()
    options = {"steps": 2, "device": torch.device("cpu")}
    with pytest.raises(DatasetError, match=r"small things: of 4 pictures none shows .* raise pictures.view_size"):
        adapt_classifier(backbone, SmallThings(3), COCO_LIKE, **options)
    assert torch.equal(before, backbone.classifier.weight)
    assert not backbone.classifier.weight.requires_grad
    # Among others they are left out: the loss is that of the others.
    pictures = LabelledPictures(SmallThings(60), COCO_LIKE)
    full, empty = pictures[0], pictures[1]._replace(labels=torch.zeros(SIDE, SIDE, dtype=torch.int64))
    losses = []
    for batch in ([full], [full, empty], [empty, full]):
        images, labels = (torch.stack(parts) for parts in zip(*batch, strict=True))
        monkeypatch.setattr(pretrain, "_batches", lambda *_, images=images, labels=labels: [(images, labels)])
        losses += adapt_classifier(build(), SmallThings(60), COCO_LIKE, steps=1, device=torch.device("cpu"))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def build():
    torch.manual_seed(0)
    return build_backbone("test_efficientnet")
