"""N-way scoring: several labels compete for one picture, and the one map that comes of it is scored.

**Episodes.** Classes with more than ``shots`` pictures take part, as in one-way scoring. They take turns as the class
that the query surely shows; the ``ways - 1`` others are drawn at random (all of them in a set of fewer classes), and
the labels stand in random order. The query is drawn from the pictures of its class, and for each label so many supports
of other pictures.

**Truth.** One map of the query, composed of the masks it has of the episode's labels, however small: pixels of one mask
are that label's, pixels of none are background, and pixels of several, or that any of these masks ignores, count
nowhere, since one map cannot say two things. A label that the query has no mask of counts as not shown, as in
``--absent``: in sets that are not fully annotated its pixels count as wrong though they may be right, which lowers the
score of every method alike.

**Score.** The ``label_map`` of the result at the query's own size, with nothing left out by score. Intersections and
unions of each label and of the background are summed over the episodes in which the label took part; mIoU is the mean
over the labels and the background.

**What competition costs.** Beside it stand three means over the labels alone: of their places on the map, as above; of
the same where the query shows them, which leaves out what absent labels took; and of the masks that they have by
themselves there, above one half, as in one-way scoring. From the third to the second right pixels went to other labels,
or wrong ones did; from the second to the first absent labels were found.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from iir_sdk.data.dataset import IGNORE, DenseDataset, FewShotDataset, source_of
from iir_sdk.data.episodes import large_enough
from iir_sdk.errors import ConfigError, TooFewPicturesError
from iir_sdk.evaluation.evaluate import Evaluator, Protocol, made_by
from iir_sdk.evaluation.metrics import SeedMeans, SegmentationScore, WaysScore, seed_means
from iir_sdk.results.segmentation import Cut, Segmentation, segmentation
from iir_sdk.segmenter import FewShotSegmenter

_LARGEST_WAYS = 254


@dataclass(frozen=True, kw_only=True)
class WaysSetScore(SeedMeans):
    """Score of one set, over the labels and the background."""

    ways: int  # how many labels compete
    background: float  # its IoU in [0, 1]
    labels: float  # mean IoU of the labels alone, in [0, 1]
    shown: float  # the same, counted on queries that show them
    own_masks: float  # of the masks that they have by themselves, likewise


@dataclass(frozen=True)
class WaysEpisode:
    """One task of several labels: the classes, in the order that the segmenter is told them."""

    labels: tuple[str, ...]
    supports: tuple[tuple[str, ...], ...]  # keys of each label's
    query: str  # not among them; shows at least one of the labels


def draw_ways(pictures: FewShotDataset, protocol: Protocol, ways: int) -> dict[int, list[WaysEpisode]]:
    """The episodes of each seed, as the module says; needs 2 to 254 ways, and two classes that have enough pictures."""
    if not 2 <= ways <= _LARGEST_WAYS:
        raise ConfigError(f"ways={ways} must lie in [2, {_LARGEST_WAYS}].")
    keys = large_enough(pictures, protocol.min_share)
    usable = sorted(name for name, of in keys.items() if len(set(map(source_of, of))) > protocol.shots)
    if len(usable) < 2:
        raise TooFewPicturesError(
            f"{pictures.name}: {len(usable)} classes have the {protocol.shots + 1} pictures that a "
            f"{protocol.shots}-shot episode needs, and at least 2 must."
        )
    drawn = {}
    for seed in protocol.seeds:
        rng = random.Random(seed)
        drawn[seed] = [_drawn(usable, i, keys, protocol.shots, ways, rng) for i in range(protocol.episodes)]
    return drawn


def _drawn(
    usable: Sequence[str], turn: int, keys: dict[str, tuple[str, ...]], shots: int, ways: int, rng: random.Random
) -> WaysEpisode:
    shown = usable[turn % len(usable)]
    others = [name for name in usable if name != shown]
    labels = [shown, *rng.sample(others, min(ways - 1, len(others)))]
    rng.shuffle(labels)
    query = rng.choice(keys[shown])
    return WaysEpisode(tuple(labels), tuple(_supports(keys[n], source_of(query), shots, rng) for n in labels), query)


def _supports(keys: Sequence[str], query_source: str, shots: int, rng: random.Random) -> tuple[str, ...]:
    """So many keys of different pictures, none of them the query's."""
    of_source = {source_of(key): key for key in rng.sample(list(keys), len(keys))}
    of_source.pop(query_source, None)
    return tuple(list(of_source.values())[:shots])


def truth_map(pictures: FewShotDataset, episode: WaysEpisode) -> NDArray[np.uint8]:
    """``(H, W)``: 0 background, ``i + 1`` the episode's ``labels[i]``, 255 what counts nowhere."""
    key = episode.query
    seen = pictures.seen.get(key, ()) if isinstance(pictures, DenseDataset) else ()
    masks = {
        i: pictures.mask(name, key)
        for i, name in enumerate(episode.labels)
        if name in seen or key in pictures.classes[name]
    }
    truth = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for i, mask in masks.items():
        truth[mask == 1] = i + 1
    shown = sum((mask == 1).astype(np.uint8) for mask in masks.values())
    ignored = np.any([mask == IGNORE for mask in masks.values()], axis=0)
    truth[(shown > 1) | ignored] = IGNORE
    return truth


def predicted(evaluator: Evaluator, episode: WaysEpisode) -> Segmentation:
    """The query by all labels of the episode, as :meth:`iir_sdk.FewShotSegmenter.predict` gives it."""
    tasks = evaluator.tasks(dict(zip(episode.labels, episode.supports, strict=True)))
    query = evaluator.query(episode.query)
    segmented = evaluator.segmenter.torch_engine.segment_read(query.features, tasks)
    blank = np.broadcast_to(np.uint8(0), (*query.size, 3))
    return segmentation(episode.labels, segmented, image=blank, cut=Cut(), timings={})


def evaluate_ways(
    segmenter: FewShotSegmenter,
    pictures: FewShotDataset,
    protocol: Protocol,
    episodes: Mapping[int, Sequence[WaysEpisode]],
) -> WaysSetScore:
    """MIoU over labels and background of one set; of the protocol, shots, smallest object and seeds are stated."""
    evaluator, scores, shown, own_masks = Evaluator(segmenter, pictures), [], [], []
    for of_seed in episodes.values():
        scores.append(score := WaysScore())
        shown.append(on_map := SegmentationScore())
        own_masks.append(alone := SegmentationScore())
        for episode in tqdm(of_seed, desc=pictures.name, unit="episode"):
            result, truth = predicted(evaluator, episode), truth_map(pictures, episode)
            label_map = result.label_map
            score.add(episode.labels, label_map, truth)
            for place in (int(value) for value in np.unique(truth) if value not in (0, IGNORE)):
                name, target = episode.labels[place - 1], _of_label(truth, place)
                on_map.add(name, label_map == place, target)
                alone.add(name, result[name].mask, target)
    backgrounds = [score.background for score in scores if score.background is not None]
    first = next(iter(episodes.values()))
    return WaysSetScore(
        name=pictures.name,
        **seed_means(scores),
        episodes=len(first),
        protocol=made_by(segmenter, protocol, episodes),
        ways=len(first[0].labels),
        background=float(np.mean(backgrounds)) if backgrounds else 0.0,
        labels=float(np.mean([np.mean(list(score.per_class.values()) or [0.0]) for score in scores])),
        shown=float(np.mean([score.miou for score in shown])),
        own_masks=float(np.mean([score.miou for score in own_masks])),
    )


def _of_label(truth: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
    """One label's mask of a truth map: 0, 1, 255."""
    return np.where(truth == IGNORE, IGNORE, truth == place).astype(np.uint8)
