"""Episodes of a benchmark's training pictures, augmented; number ``i`` is the same on any worker or process."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from iir_sdk.data.dataset import FewShotDataset, source_of
from iir_sdk.errors import DatasetError
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.object_crop import ObjectCrop


class EpisodePictures(NamedTuple):
    """One episode's pictures."""

    support: Tensor  # ``(K, 3, S, S)`` uint8
    support_mask: Tensor  # ``(K, S, S)`` uint8 in {0, 1, 255}, with some foreground
    query: Tensor  # ``(3, S, S)`` uint8
    target: Tensor  # ``(S, S)`` uint8 in {0, 1, 255}
    own_class: int  # number of the class among the dataset's


class EpisodeStream(Dataset[EpisodePictures]):
    """Endless training episodes: each epoch takes every picture as the query once, in an order of its own.

    Those of a ``group`` are batched together, over all processes, and have equally many shots.
    """

    def __init__(self, dataset: FewShotDataset, config: TrainingConfig, *, group: int = 1) -> None:
        self.dataset, self.config, self.group = dataset, config, group
        needed = max(config.episodes.shots) + 1
        self.classes = {c: keys for c, keys in dataset.classes.items() if len(set(map(source_of, keys))) >= needed}
        self.numbers = {c: i for i, c in enumerate(dataset.classes)}
        if not self.classes:
            raise DatasetError(
                f"no class of {dataset.name} has the {needed} pictures that {max(config.episodes.shots)} shots need."
            )
        self.shown: dict[str, list[str]] = {}
        for name, keys in sorted(self.classes.items()):
            for key in keys:
                self.shown.setdefault(key, []).append(name)
        self.queries = sorted(self.shown)
        self._kept_order: tuple[int, list[int]] = (-1, [])
        self._augment = ObjectCrop(config)

    @property
    def epoch_length(self) -> int:
        """Episodes of an epoch."""
        return len(self.queries)

    def contents(self) -> dict[str, Any]:
        """Number of pictures by class."""
        counts = {name: len(keys) for name, keys in self.classes.items()}
        return {"sets": {self.dataset.name: counts}, "fold": self.config.fold, "convention": self.config.convention}

    def __getitem__(self, number: int) -> EpisodePictures:
        """Episode ``number``, made from (seed, epoch, number) alone."""
        epoch, place = divmod(number, self.epoch_length)
        rng = random.Random(f"{self.config.seed}/{epoch}/{number}")
        query = self.queries[self._order(epoch)[place]]
        name = rng.choice(self.shown[query])
        # The same number of shots for all of a batch, whatever the number of processes that share it.
        shots = random.Random(f"{self.config.seed}/shots/{number // self.group}").choice(self.config.episodes.shots)
        supports = self._supports(name, query, shots, rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.getrandbits(62))
            pairs = [self._pair(name, key) for key in supports]
            image, target = self._pair(name, query)
        images, masks = (torch.stack(list(part)) for part in zip(*pairs, strict=True))
        return EpisodePictures(images, masks, image, target, self.numbers[name])

    def _order(self, epoch: int) -> list[int]:
        """The queries' order in an epoch; kept, since an epoch is long."""
        if self._kept_order[0] != epoch:
            order = list(range(self.epoch_length))
            random.Random(f"{self.config.seed}/{epoch}").shuffle(order)
            self._kept_order = (epoch, order)
        return self._kept_order[1]

    def _supports(self, name: str, query: str, count: int, rng: random.Random) -> list[str]:
        """Pictures of a class, each of another photograph than the query's and one another's."""
        taken, keys = {source_of(query)}, self.classes[name]
        chosen: list[str] = []
        for key in rng.sample(keys, len(keys)) if any("#" in k for k in keys) else rng.sample(keys, count + 1):
            if source_of(key) not in taken and len(chosen) < count:
                taken.add(source_of(key))
                chosen.append(key)
        return chosen

    def _pair(self, name: str, key: str) -> tuple[Tensor, Tensor]:
        """An augmented picture and its mask, with some foreground."""
        image = torch.from_numpy(np.array(self.dataset.picture(key))).permute(2, 0, 1)
        return self._augment(image, torch.from_numpy(self.dataset.mask(name, key).copy()))
