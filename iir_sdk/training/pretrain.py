"""What is trained before the decoder: the base learner and, if wanted, the classifier (method, sections 6 and 7)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from iir_sdk.data.dataset import IGNORE, DenseDataset, FewShotDataset
from iir_sdk.errors import ConfigError, DatasetError, WeightsError, WeightsNotFoundError
from iir_sdk.files import write_safetensors
from iir_sdk.model.backbone import Backbone
from iir_sdk.model.base_learner import BaseLearner
from iir_sdk.model.prototypes import grid_size, resize_mask
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.object_crop import ObjectCrop
from iir_sdk.training.run.optimisation import autocast
from iir_sdk.training.run.step import frozen_taps, network_input

TEMPERATURE = 3.0
"""``T`` of the classifier's adaptation (method, section 7)."""
UNKNOWN = -1
"""Label of pixels that count nowhere; there may be more classes than 255."""
_SHOWN = 0.5
Descent = Callable[[Tensor], float]


class LabelledPicture(NamedTuple):
    """A picture ``(3, S, S)`` uint8 with class numbers ``(S, S)`` int64: 0 background, -1 ignore."""

    image: Tensor
    labels: Tensor


class LabelledPictures(Dataset[LabelledPicture]):
    """Augmented pictures with all base classes at once; number ``i`` is made from (seed, i) alone."""

    def __init__(self, dataset: FewShotDataset, config: TrainingConfig) -> None:
        self.dataset, self.config = dataset, config
        self.names = tuple(dataset.classes)
        shown: dict[str, list[int]] = {}
        for i, (name, keys) in enumerate(dataset.classes.items()):
            # Where the dataset knows them, also the classes that a picture shows too small for an episode.
            if isinstance(dataset, DenseDataset):
                keys = tuple(k for k, seen in dataset.seen.items() if name in seen)
            for key in keys:
                shown.setdefault(key, []).append(i)
        self.shown = dict(sorted(shown.items()))
        self.keys = list(self.shown)
        self._augment = ObjectCrop(config)

    def __getitem__(self, number: int) -> LabelledPicture:
        """Picture ``number``."""
        rng = random.Random(f"{self.config.seed}/base/{number}")
        key = rng.choice(self.keys)
        pixels = self.dataset.picture(key)
        labels = np.zeros(pixels.shape[:2], np.int32)
        for i in self.shown[key]:
            mask = self.dataset.mask(self.names[i], key)
            labels[mask == 1] = i + 1 if i + 1 < IGNORE else i + 2
            labels[(mask == IGNORE) & (labels == 0)] = IGNORE
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.getrandbits(62))
            crop, of_crop = self._augment(image, torch.from_numpy(labels))
        # Without the gap at 255, which augmentation fills edges with.
        plain = of_crop.long()
        return LabelledPicture(crop, torch.where(plain == IGNORE, UNKNOWN, plain - (plain > IGNORE).long()))


def pretrain_base_learner(
    backbone: Backbone,
    dataset: FewShotDataset,
    config: TrainingConfig,
    *,
    steps: int,
    learning_rate: float = 2.5e-3,
    device: torch.device,
    workers: int = 0,
) -> tuple[BaseLearner, list[float]]:
    """Train PSPNet's head on the base classes, by cross entropy, SGD and poly; gives it, and the loss of each step."""
    torch.manual_seed(config.seed)
    learner = BaseLearner(backbone.channels, len(dataset.classes)).to(device).train()
    descend, losses = _descent(learner.parameters(), steps, learning_rate, 1e-4), []
    for images, labels in _batches(LabelledPictures(dataset, config), config, steps, device, workers):
        taps = frozen_taps(backbone, images, config, device)
        with autocast(config, device):
            logits = learner(taps)
        full = F.interpolate(logits.float(), labels.shape[1:], mode="bilinear", align_corners=False)
        known = (labels != UNKNOWN).sum().clamp_min(1)
        loss = F.cross_entropy(full, labels, ignore_index=UNKNOWN, reduction="sum") / known
        losses.append(descend(loss))
    return learner.eval(), losses


def adapt_classifier(
    backbone: Backbone,
    dataset: FewShotDataset,
    config: TrainingConfig,
    *,
    steps: int,
    learning_rate: float = 1e-3,
    device: torch.device,
    workers: int = 0,
) -> list[float]:
    """Retrain the linear classifier alone, in place, so that it names an object also among its surroundings.

    On whole pictures it learns what a frozen copy of itself says of the masked ones: cross entropy to the copy's class
    plus ``T^2 KL`` to its softened answer, ``T = 3`` (method, section 7). Pictures whose objects cover no cell of the
    masked map by half are left out: the copy would answer to next to nothing. Gives the loss of each step that had a
    picture to learn from; a DatasetError where none had.
    """
    student = backbone.classifier
    descend, losses = _descent(student.parameters(), steps, learning_rate, 0.0), []
    frozen_weight, frozen_bias = student.weight.detach().clone(), student.bias.detach().clone()
    student.requires_grad_(True)
    for images, labels in _batches(LabelledPictures(dataset, config), config, steps, device, workers):
        with torch.no_grad(), autocast(config, device):
            taps = backbone(network_input(images, config, device))
            masks = (labels > 0)[:, None].float()
            shown = resize_mask(masks, grid_size(taps.mid)).amax((1, 2, 3)) >= _SHOWN
            seen = backbone.pre_logits(backbone.object_map(taps.mid, taps.high, masks)).float()
            whole = backbone.pre_logits(backbone.pooled_map(taps.high)).float()
            teacher = F.linear(seen, frozen_weight, frozen_bias)
        if shown.any():
            loss = adaptation_loss(F.linear(whole[shown], student.weight, student.bias), teacher[shown])
            losses.append(descend(loss))
    student.requires_grad_(False)
    if not losses:
        raise DatasetError(
            f"{dataset.name}: of {steps * config.episodes.batch} pictures none shows an object that is large enough to "
            "adapt the classifier to; raise pictures.view_size, or pass pictures of larger objects."
        )
    return losses


def adaptation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``CE(student, argmax teacher) + T^2 KL(teacher / T || student / T)`` of logits ``(B, C)``."""
    entropy = F.cross_entropy(student, teacher.argmax(1))
    softened = F.log_softmax(student / TEMPERATURE, 1)
    divergence = F.kl_div(softened, F.log_softmax(teacher / TEMPERATURE, 1), log_target=True, reduction="batchmean")
    return entropy + TEMPERATURE**2 * divergence


def save_part(part: torch.nn.Module, path: Path, classes: Sequence[str] = ()) -> Path:
    """Write a part's weights as safetensors, with the names of its classes."""
    tensors = {name: tensor.float() for name, tensor in part.state_dict().items()}
    return write_safetensors(path, tensors, {"classes": "\n".join(classes)})


def part_classes(path: Path) -> tuple[str, ...]:
    """Names of the classes of a part that :func:`save_part` wrote; a WeightsError for any other file."""
    if not path.is_file():
        raise WeightsNotFoundError(f"no base learner at {str(path)!r}; iir-sdk pretrain writes one.")
    try:
        with safe_open(path, framework="pt") as stored:
            return tuple((stored.metadata() or {}).get("classes", "").splitlines())
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as a pretrained part: {error}.") from error


def _descent(parameters: Iterator[nn.Parameter], steps: int, learning_rate: float, decay: float) -> Descent:
    """SGD by a poly schedule: each loss that it is given is one step; it gives the loss as a number."""
    if steps < 1:
        raise ConfigError(f"steps={steps} must be at least 1.")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ConfigError(f"learning_rate={learning_rate} must be a finite number above 0.")
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)

    def descend(loss: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        return float(loss.detach())

    return descend


def _batches(
    pictures: LabelledPictures, config: TrainingConfig, steps: int, device: torch.device, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    numbers = [[step * config.episodes.batch + i for i in range(config.episodes.batch)] for step in range(steps)]
    loader = DataLoader(pictures, batch_sampler=numbers, num_workers=workers, collate_fn=list)
    for batch in tqdm(loader, desc="pretrain", unit="step"):
        yield torch.stack([p.image for p in batch]), torch.stack([p.labels for p in batch]).to(device)
