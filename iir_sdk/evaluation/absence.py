"""Queries that do not show an episode's object, as far as masks and names can tell."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace

from iir_sdk.data.dataset import DenseDataset, FewShotDataset, source_of
from iir_sdk.data.episodes import Episode
from iir_sdk.data.exclusion import name_words, shows_any
from iir_sdk.data.folder import COCO_CLASSES, JoinedSets
from iir_sdk.errors import NoAbsenceError

_WORDS = """
    advertisement box branch building cabinet ceiling clothing crop crosswalk cut door facade fence field floor forest
    hat lane leaf line paper pavement plant plastic plate pole railing road rock roof root rust shelf shop shorts
    sidewalk sign sky stamp stem street text tree trunk tshirt vegetation wall waste weed window
"""
_EVERYWHERE = frozenset(_WORDS.split())
"""Words for what any photo may show, whether or not its set has masks of it; COCO's classes are such, too."""


def absent_episodes(pictures: FewShotDataset, episodes: Sequence[Episode], seed: int) -> list[Episode]:
    """The same supports, each with a query that does not show their class: a picture of another one.

    Raises:
        NoAbsenceError: every picture shows the class.
    """
    rng = random.Random(seed)
    shows = {name: {source_of(key) for key in keys} for name, keys in pictures.classes.items()}
    # Where the dataset knows them, also the pictures that show a class too small for an episode.
    for key, seen in pictures.seen.items() if isinstance(pictures, DenseDataset) else ():
        for name in shows.keys() & set(seen):
            shows[name].add(source_of(key))
    every = sorted({key for keys in pictures.classes.values() for key in keys})
    without = {name: [key for key in every if source_of(key) not in shows[name]] for name in shows}
    for name in {e.name for e in episodes}:
        if not without[name]:
            raise NoAbsenceError(f"{pictures.name}: every picture shows {name!r}; absence needs some that do not.")
    return [replace(e, query=rng.choice(without[e.name])) for e in episodes]


def absent_across(sets: JoinedSets, episodes: Sequence[Episode], seed: int) -> list[Episode]:
    """The same supports, each with a query of another set that shares no word with the class or its set.

    Things that any photo may show unlabelled, as walls, trees and COCO's classes, get none: there are fewer episodes
    then, perhaps none. Sets are asked alike, whatever the number of their pictures.
    """
    rng = random.Random(seed)
    words = {name: _words_of_set(sets, name) for name in sets.sets}
    absent = []
    for e in episodes:
        set_name, _, name = e.name.partition("/")
        others = (
            ()
            if _is_everywhere(set_name, name)
            else [other for other in sorted(words) if words[other].isdisjoint(name_words(name) + name_words(set_name))]
        )
        if others:
            other = sets.sets[rng.choice(others)]
            absent.append(replace(e, query=f"{other.name}/{rng.choice(sorted(other.images))}"))
    return absent


def _is_everywhere(set_name: str, name: str) -> bool:
    words: Collection[str] = name_words(name) + name_words(set_name)
    return not _EVERYWHERE.isdisjoint(words) or shows_any(set_name, name, COCO_CLASSES)


def _words_of_set(sets: JoinedSets, set_name: str) -> set[str]:
    names = (set_name, *sets.sets[set_name].classes)
    return {word for name in names for word in name_words(name)}
