"""Test episodes, fixed by their seed: which pictures support which query."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iir_sdk.errors import DatasetError
from iir_sdk.training.data.folder import PictureSet


@dataclass(frozen=True)
class Episode:
    """One few-shot task.

    Attributes:
        name: the class.
        supports: stems of the support pictures.
        query: stem of the query picture, not among them.
    """

    name: str
    supports: tuple[str, ...]
    query: str


def large_enough(pictures: PictureSet, min_share: float) -> dict[str, tuple[str, ...]]:
    """Stems by class whose object covers at least ``min_share`` of its picture and not all of it."""
    kept: dict[str, tuple[str, ...]] = {}
    for name, stems in pictures.classes.items():
        kept[name] = tuple(s for s in stems if min_share <= pictures.mask(name, s).mean() < 1)
    return kept


def sample_episodes(stems: Mapping[str, Sequence[str]], *, shots: int, count: int, seed: int) -> list[Episode]:
    """Draw episodes: classes in turn, query and supports at random without repetition.

    The same arguments give the same episodes everywhere. Classes with fewer than ``shots + 1`` pictures are left out.

    Args:
        stems: pictures by class.
        shots: support pictures of an episode.
        count: number of episodes.
        seed: of the draw.

    Raises:
        DatasetError: no class has enough pictures.
    """
    usable = sorted(name for name, pictures in stems.items() if len(pictures) > shots)
    if not usable:
        raise DatasetError(f"no class has the {shots + 1} pictures that a {shots}-shot episode needs.")
    rng = random.Random(seed)
    episodes = []
    for i in range(count):
        name = usable[i % len(usable)]
        drawn = rng.sample(list(stems[name]), shots + 1)
        episodes.append(Episode(name, tuple(drawn[1:]), drawn[0]))
    return episodes
