"""Scores a segmenter on fixed episodes, at every picture's own size (method, section 8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from iir_sdk.data.bounded_cache import BoundedCache
from iir_sdk.data.dataset import IGNORE, FewShotDataset
from iir_sdk.data.episodes import Episode, large_enough, sample_episodes
from iir_sdk.engines.base import TaskGroup
from iir_sdk.errors import ConfigError, TooFewPicturesError
from iir_sdk.evaluation.metrics import Counts, SeedMeans, SegmentationScore, counts_of, seed_means
from iir_sdk.model.encodings import QueryFeatures
from iir_sdk.results.full_size import full_map, probability_map
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.supports.encoded import EncodedSupport

Output = Literal["mask", "prior"]
"""What is scored: the network's mask, or IIR's prior alone."""

_SUPPORT_BYTES, _QUERY_BYTES = 1 << 30, 3 << 29
"""Kept at most; a query's features take some 4 MB, and the pictures of a COCO fold fit."""


@dataclass(frozen=True)
class EpisodeScore:
    """One episode and the foreground IoU of its mask."""

    episode: Episode
    iou: float


@dataclass(frozen=True, kw_only=True)
class SetScore(SeedMeans):
    """Score of one set, one class at a time: mIoU over the classes, FB-IoU in [0, 1], and the first seed's episodes."""

    fb_iou: float
    scored: tuple[EpisodeScore, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """How a set is scored."""

    shots: int = 1  # supports of an episode
    episodes: int = 1000  # of each seed, classes in turn
    seeds: tuple[int, ...] = (0,)  # of the episodes
    min_share: float = 0.01  # smallest share of its picture that an object covers, as support and as query
    output: Output = "mask"  # what is scored

    def __post_init__(self) -> None:
        """Check the ranges; a ConfigError names the value and what was expected."""
        if self.shots < 1 or self.episodes < 1:
            raise ConfigError(f"shots={self.shots} and episodes={self.episodes} must be at least 1.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds={self.seeds} must name at least one, and none twice.")
        if not 0 <= self.min_share < 1:
            raise ConfigError(f"min_share={self.min_share} must lie in [0, 1).")


class Evaluator:
    """Runs episodes through a segmenter's own model and preprocessing; nothing is done twice that memory can hold.

    Each support and query is encoded once, and an episode that comes again, as many do in small sets, counts as it did.
    The segmenter's supports are neither used nor changed.
    """

    def __init__(self, segmenter: FewShotSegmenter, pictures: FewShotDataset, *, output: Output = "mask") -> None:
        self.segmenter, self.pictures, self.output = segmenter, pictures, output
        self._queries: BoundedCache[str, Query] = BoundedCache(_QUERY_BYTES, lambda query: query.features.nbytes)
        self._supports: BoundedCache[tuple[str, str], EncodedSupport] = BoundedCache(_SUPPORT_BYTES, lambda s: s.nbytes)
        self._counts: dict[Episode, Counts] = {}

    def probability(self, episode: Episode) -> NDArray[np.float32]:
        """Foreground probability of the episode's query, ``(H, W)`` at its own size."""
        tasks, query = self.tasks({episode.name: episode.supports}), self.query(episode.query)
        segmented = self.segmenter.torch_engine.segment_read(query.features, tasks)
        if self.output == "prior":
            return full_map(segmented.priors[0], query.size)
        return probability_map(segmented.leads[0], query.size)

    def tasks(self, keys: Mapping[str, Sequence[str]]) -> list[TaskGroup]:
        """Supports by their class, made ready to be predicted by."""
        states = [
            self.segmenter.task([self._support(name, key) for key in of_class]) for name, of_class in keys.items()
        ]
        return self.segmenter.engine.prepare(states)

    def score(self, episodes: Sequence[Episode]) -> tuple[SegmentationScore, list[EpisodeScore]]:
        """Score episodes by where probability is above one half: all together, and each by its IoU."""
        score, each = SegmentationScore(), []
        for episode in tqdm(episodes, desc=self.pictures.name, unit="episode"):
            if episode not in self._counts:
                target = self.pictures.mask(episode.name, episode.query)
                self._counts[episode] = counts_of(self.probability(episode) > 0.5, target)
            each.append(EpisodeScore(episode, score.add_counts(episode.name, self._counts[episode])))
        return score, each

    def _support(self, name: str, key: str) -> EncodedSupport:
        def encode() -> EncodedSupport:
            mask = self.pictures.mask(name, key)
            return self.segmenter.engine.encode(self.pictures.picture(key), mask == 1, mask != IGNORE)

        return self._supports.computed((name, key), encode)

    def query(self, key: str) -> Query:
        """A query's features and size."""

        def look() -> Query:
            pixels = self.pictures.picture(key)
            return Query(self.segmenter.torch_engine.read(pixels), (pixels.shape[0], pixels.shape[1]))

        return self._queries.computed(key, look)


@dataclass(frozen=True)
class Query:
    """A query's features, and its own ``(height, width)``."""

    features: QueryFeatures
    size: tuple[int, int]


def draw_episodes(pictures: FewShotDataset, protocol: Protocol) -> dict[int, list[Episode]]:
    """The episodes of each seed; a TooFewPicturesError names a set without a class that has enough pictures."""
    keys = large_enough(pictures, protocol.min_share)
    shots, count = protocol.shots, protocol.episodes
    try:
        return {seed: sample_episodes(keys, shots=shots, count=count, seed=seed) for seed in protocol.seeds}
    except TooFewPicturesError as error:
        raise TooFewPicturesError(f"{pictures.name}: {error}") from error


def evaluate_set(
    segmenter: FewShotSegmenter,
    pictures: FewShotDataset,
    protocol: Protocol | None = None,
    *,
    episodes: dict[int, list[Episode]] | None = None,
) -> SetScore:
    """MIoU and FB-IoU of one set with the classes to score only, mean and standard deviation over the seeds.

    Draws episodes where none are given; a set without a class that has enough pictures is a TooFewPicturesError.
    """
    protocol = protocol or Protocol()
    drawn = draw_episodes(pictures, protocol) if episodes is None else episodes
    evaluator = Evaluator(segmenter, pictures, output=protocol.output)
    runs = [evaluator.score(of_seed) for of_seed in drawn.values()]
    means = seed_means([score for score, _ in runs])
    stated = {"output": protocol.output, "classes": len(means["per_class"])}
    return SetScore(
        name=pictures.name,
        **means,
        episodes=len(next(iter(drawn.values()))),
        protocol=made_by(segmenter, protocol, drawn) | stated,
        fb_iou=float(np.mean([score.fb_iou for score, _ in runs])),
        scored=tuple(runs[0][1]),
    )


def made_by(segmenter: FewShotSegmenter, protocol: Protocol, seeds: Iterable[int]) -> dict[str, Any]:
    """How a set was scored and by what, as stated beside its score."""
    return {
        "shots": protocol.shots,
        "seeds": list(seeds),
        "min_share": protocol.min_share,
        "precision": segmenter.engine.identity.precision,
        "token_budget": segmenter.token_budget,
        "checkpoint": segmenter.checkpoint.name,
        "sha256": segmenter.checkpoint.sha256,
        "input_pixels": segmenter.preprocessing.size,
        "scored_at": "own size",
    }
