"""Where the batches of a run come from: kept features of augmented views, or the pictures of a benchmark."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from iir_sdk.model.backbone import Backbone, Taps
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.bank.file import read_bank
from iir_sdk.training.bank.forecast import check_room, forecast
from iir_sdk.training.bank.regions import BankEpisode, RegionClasses
from iir_sdk.training.bank.stream import ViewBatch, stream_views
from iir_sdk.training.bank.views import ViewMaker
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.episode_pictures import EpisodePictures, EpisodeStream
from iir_sdk.training.run.hand_drawn import hand_drawn
from iir_sdk.training.run.processes import Processes
from iir_sdk.training.run.step import EpisodeBatch, frozen_taps

_TOGETHER = 16
"""Views that go through the backbone as one batch where it runs on a device of its own."""


class EpisodeSource(Protocol):
    """Gives every step its batches; the same step gets the same ones, whenever a run was resumed."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""

    def contents(self) -> dict[str, Any]:
        """What the run is made of, for its folder."""

    def batches(self, first: int) -> Iterator[list[EpisodeBatch]]:
        """This process's batches of step ``first`` and all later ones, ``accumulate`` of them a step."""


@dataclass(frozen=True)
class FilledBank:
    """A bank that was filled before, see :mod:`iir_sdk.training.bank.file`.

    Attributes:
        path: its folder.
        digest: sha256 of what it holds.
    """

    path: Path
    digest: str


class BankSource:
    """Episodes from a :class:`FeatureBank` that is filled at the start, or from one that was filled before.

    Args:
        maker: of the views.
        backbone: the frozen network.
        config: the recipe.
        device: where features are kept.
        workers: processes that make views, on a CPU with their features.
        processes: of the run; each keeps the whole bank and takes its share of each step's episodes.
        filled: the bank, where one was filled before; of its views those that are made of the maker's classes alone are
            used. None fills one.
    """

    def __init__(
        self,
        maker: ViewMaker,
        backbone: Backbone,
        config: TrainingConfig,
        *,
        device: torch.device,
        workers: int,
        processes: Processes | None = None,
        filled: FilledBank | None = None,
    ) -> None:
        self.maker, self.backbone, self.config = maker, backbone, config
        self.device, self.workers, self.processes = device, workers, processes or Processes()
        self.filled = filled
        self._bank: FeatureBank | None = None

    @property
    def steps(self) -> int:
        """The recipe's."""
        return self.config.steps

    def contents(self) -> dict[str, Any]:
        """Number of masks by set and class, the cut-outs, and which kept bank there is."""
        return self.maker.contents() | ({"bank": self.filled.digest} if self.filled else {})

    def batches(self, first: int) -> Iterator[list[EpisodeBatch]]:
        """Draw each step's episodes from the bank."""
        config, bank, shown = self.config, self.bank(), self.processes.first
        regions = RegionClasses(bank, config, progress=shown) if config.episodes.ask_for_regions else None
        for step in range(first, config.steps):
            yield self._draw(bank, regions, step)

    def bank(self) -> FeatureBank:
        """The full bank: filled, or read, when it is first asked for.

        Raises:
            DatasetError: one that was filled before cannot be read.
        """
        if self._bank is None and self.filled:
            allowed = self.maker.classes().__contains__, self.maker.pictures()
            self._bank = read_bank(self.filled.path, self.config, self.device, *allowed)
        elif self._bank is None:
            self._bank = self._filled()
        return self._bank

    def _filled(self) -> FeatureBank:
        bank = FeatureBank(self.config, self.device)
        self.announce(self.config.bank.views, processes=1)
        for batch in self.views(range(self.config.bank.views)):
            assert batch.taps is not None
            bank.hold([tap.to(self.device, torch.bfloat16) for tap in batch.taps], batch.views)
        return bank

    def announce(self, count: int, *, processes: int, folder: Path | None = None) -> None:
        """Say what so many views will take that so many processes share.

        Args:
            count: how many are still to be made.
            processes: that share them, each with workers of its own.
            folder: where they go; None for memory.

        Raises:
            OutputError: there is no room for them.
        """
        if not count:
            return
        needed = forecast(self._together, count, processes * max(1, self.workers))
        if self.processes.first:
            tqdm.write(str(needed), file=sys.stderr)
        check_room(needed, folder)

    def views(self, numbers: Sequence[int]) -> Iterator[ViewBatch]:
        """The views of these numbers in order, with their taps, :data:`_TOGETHER` at a time."""
        with tqdm(total=len(numbers), desc="views", unit="view", disable=not self.processes.first) as bar:
            for batch in self._views(numbers, workers=self.workers):
                yield batch
                bar.update(len(batch.views))

    def _together(self, numbers: range) -> ViewBatch:
        """A few views at once, made here."""
        return next(self._views(numbers, workers=0))

    def _views(self, numbers: Sequence[int], *, workers: int) -> Iterator[ViewBatch]:
        look = partial(frozen_taps, self.backbone, config=self.config, device=self.device)
        stream = partial(stream_views, self.maker, numbers, batch=_TOGETHER, workers=workers)
        if self.device.type == "cpu":
            # A core computes as many views a second by itself as two do together.
            yield from stream(look=look)
            return
        for views in stream():
            yield views._replace(images=views.images[:0], taps=look(views.images))

    def _draw(self, bank: FeatureBank, regions: RegionClasses | None, step: int) -> list[EpisodeBatch]:
        settings = self.config.episodes
        rng = random.Random(f"{self.config.seed}/episodes/{step}")
        batches = []
        for part in range(settings.accumulate):
            shots, counter = rng.choice(settings.shots), rng.random() < settings.counterexamples
            count = settings.batch * self.processes.count
            everyones = [_episode(bank, regions, shots, rng, counter=counter) for _ in range(count)]
            first = self.processes.rank * settings.batch
            # Hand-drawn masks are drawn by each process for its own episodes, so each has its own dice for them.
            dice = [random.Random(f"{self.config.seed}/drawn/{step}/{part}/{first + i}") for i in range(settings.batch)]
            batches.append(_bank_batch(bank, everyones[first:][: settings.batch], shots, dice))
        return batches


def _episode(
    bank: FeatureBank, regions: RegionClasses | None, shots: int, rng: random.Random, *, counter: bool = False
) -> BankEpisode:
    """One of a labelled class, or by the recipe's shares of a region."""
    if regions:
        config, at = bank.config, rng.random()
        if at < config.episodes.regions + config.episodes.shared_regions:
            return regions.draw(shots, rng, shared=at >= config.episodes.regions)
    key, supports, query = bank.draw(shots, rng)
    counterexample = bank.draw_counterexample(key, query, rng) if counter else None
    return BankEpisode(supports, query, partial(bank.mask, key=key), counterexample)


def _bank_batch(bank: FeatureBank, episodes: list[BankEpisode], shots: int, dice: list[random.Random]) -> EpisodeBatch:
    share = bank.config.episodes.hand_drawn
    drawn = [_supports(e, share, rng) for e, rng in zip(episodes, dice, strict=True)]
    targets = np.stack([e.mask(e.query) for e in episodes])
    batch = EpisodeBatch(
        bank.taps([slot for slots, _ in drawn for slot in slots]),
        torch.from_numpy(np.stack([mask for _, masks in drawn for mask in masks])).long().to(bank.device),
        bank.taps([e.query for e in episodes]),
        torch.from_numpy(targets).long().to(bank.device),
        shots,
    )
    counterexamples = [e.counterexample or (e.query, np.zeros(targets.shape[1:], np.bool_)) for e in episodes]
    if not any(known.any() for _, known in counterexamples):
        return batch
    return replace(
        batch,
        counterexample=bank.taps([slot for slot, _ in counterexamples]),
        counterexample_known=torch.from_numpy(np.stack([known for _, known in counterexamples])).to(bank.device),
    )


def _supports(
    episode: BankEpisode, hand_drawn_share: float, rng: random.Random
) -> tuple[list[int], list[NDArray[np.uint8]]]:
    """Slots and masks of an episode's supports: exact, or now and then as people draw them."""
    slots, exact = list(episode.supports), [episode.mask(slot) for slot in episode.supports]
    if rng.random() >= hand_drawn_share:
        return slots, exact
    target = episode.mask(episode.query)
    if rng.random() < 0.5 and (target == 1).any():
        slots[0], exact[0] = episode.query, target
    return slots, [hand_drawn(mask, rng) for mask in exact]


class PictureSource:
    """Episodes of a benchmark's pictures, each run through the backbone when its step comes.

    Args:
        stream: of the episodes.
        backbone: the frozen network.
        config: the recipe.
        device: where it runs.
        workers: processes that read and augment pictures.
        processes: of the run; each takes its share of each step's episodes.
    """

    def __init__(
        self,
        stream: EpisodeStream,
        backbone: Backbone,
        config: TrainingConfig,
        *,
        device: torch.device,
        workers: int,
        processes: Processes | None = None,
    ) -> None:
        self.stream, self.backbone, self.config = stream, backbone, config
        self.device, self.workers, self.processes = device, workers, processes or Processes()

    @property
    def steps(self) -> int:
        """The recipe's, or as many as its epochs take."""
        of_step = self.config.episodes.batch * self.config.episodes.accumulate * self.processes.count
        return self.config.steps or max(1, self.config.epochs * self.stream.epoch_length // of_step)

    def contents(self) -> dict[str, Any]:
        """Number of pictures by class."""
        return self.stream.contents()

    def batches(self, first: int) -> Iterator[list[EpisodeBatch]]:
        """Read ahead with worker processes, from step ``first`` on."""
        config = self.config
        loader = DataLoader(self.stream, batch_sampler=_Numbers(self, first), num_workers=self.workers, collate_fn=list)
        of_step: list[EpisodeBatch] = []
        for episodes in loader:
            of_step.append(self._batch(episodes))
            if len(of_step) == config.episodes.accumulate:
                yield of_step
                of_step = []

    def number(self, step: int, part: int, i: int) -> int:
        """Episode ``i`` of this process's batch: all processes together take neighbouring ones."""
        everyones = self.config.episodes.batch * self.processes.count
        return (
            (step * self.config.episodes.accumulate + part) * everyones
            + self.processes.rank * self.config.episodes.batch
            + i
        )

    def _batch(self, episodes: list[EpisodePictures]) -> EpisodeBatch:
        shots = len(episodes[0].support)
        support = torch.cat([e.support for e in episodes])
        targets = torch.cat([e.support_mask for e in episodes])
        classes = torch.tensor([e.own_class for e in episodes], device=self.device)
        return EpisodeBatch(
            self._taps(support),
            targets.long().to(self.device),
            self._taps(torch.stack([e.query for e in episodes])),
            torch.stack([e.target for e in episodes]).long().to(self.device),
            shots,
            classes if self.config.model.base_classes else None,
        )

    def _taps(self, images: Tensor) -> Taps:
        return frozen_taps(self.backbone, images, self.config, self.device)


class _Numbers:
    """The episodes' numbers, a batch at a time; a run has too many to list them."""

    def __init__(self, source: PictureSource, first: int) -> None:
        self.source, self.first = source, first

    def __len__(self) -> int:
        return (self.source.steps - self.first) * self.source.config.episodes.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        config = self.source.config
        for step in range(self.first, self.source.steps):
            for part in range(config.episodes.accumulate):
                yield [self.source.number(step, part, i) for i in range(config.episodes.batch)]
