"""Test episodes, fixed by their seed: which pictures support which query."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iir_sdk.data.dataset import FewShotDataset, source_of
from iir_sdk.errors import DatasetError, TooFewPicturesError
from iir_sdk.files import write_text_atomically


@dataclass(frozen=True)
class Episode:
    """One few-shot task: the class, and keys of the supports and of the query, which is not among them."""

    name: str
    supports: tuple[str, ...]
    query: str


def large_enough(pictures: FewShotDataset, min_share: float) -> dict[str, tuple[str, ...]]:
    """Pictures by class whose object covers at least ``min_share`` of them and not all; all of them for 0."""
    if min_share == 0:
        return dict(pictures.classes)
    return {
        name: tuple(key for key in keys if min_share <= (pictures.mask(name, key) == 1).mean() < 1)
        for name, keys in pictures.classes.items()
    }


def sample_episodes(stems: Mapping[str, Sequence[str]], *, shots: int, count: int, seed: int) -> list[Episode]:
    """Draw episodes: classes in turn, query and supports at random without repetition.

    The same arguments give the same episodes everywhere. Classes with fewer than ``shots + 1`` pictures are left out;
    where all are, that is a TooFewPicturesError.
    """
    usable = sorted(name for name, keys in stems.items() if len(set(map(source_of, keys))) > shots)
    if not usable:
        raise TooFewPicturesError(f"no class has the {shots + 1} pictures that a {shots}-shot episode needs.")
    rng = random.Random(seed)
    episodes = []
    for i in range(count):
        name = usable[i % len(usable)]
        drawn = _distinct(list(stems[name]), shots + 1, rng)
        episodes.append(Episode(name, tuple(drawn[1:]), drawn[0]))
    return episodes


def _distinct(keys: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Keys of different pictures, at random."""
    if not any("#" in key for key in keys):
        return rng.sample(list(keys), count)
    of_source: dict[str, str] = {}
    for key in rng.sample(list(keys), len(keys)):
        of_source.setdefault(source_of(key), key)
    return list(of_source.values())[:count]


def check_episodes(episodes: Mapping[int, Sequence[Episode]], pictures: FewShotDataset, shots: int) -> None:
    """Refuse listed episodes of another set, or of another number of shots: a DatasetError names the first."""
    for drawn in episodes.values():
        for e in drawn:
            keys = pictures.classes.get(e.name, ())
            if not {e.query, *e.supports} <= set(keys):
                raise DatasetError(f"the listed episode {e} is not of {pictures.name}; was it listed for another fold?")
            if len(e.supports) != shots:
                raise DatasetError(f"the listed episode {e} has {len(e.supports)} shots, not {shots}.")


def write_episodes(path: Path, episodes: Mapping[str, Mapping[int, Sequence[Episode]]]) -> Path:
    """List episodes by set and seed in a JSON file, so that another method can be scored on the same ones."""
    plain = {
        name: {str(seed): [[e.name, list(e.supports), e.query] for e in drawn] for seed, drawn in of_seeds.items()}
        for name, of_seeds in episodes.items()
    }
    text = json.dumps(plain, indent=0) + "\n"
    return write_text_atomically(path, text)


def read_episodes(path: Path) -> dict[str, dict[int, list[Episode]]]:
    """What :func:`write_episodes` listed; a DatasetError where a file is none of its."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: {int(seed): [Episode(str(n), tuple(s), str(q)) for n, s, q in drawn] for seed, drawn in of.items()}
            for name, of in plain.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is not a list of episodes: {error}.") from error
