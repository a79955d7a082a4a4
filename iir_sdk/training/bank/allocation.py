"""How often each set is asked for, and how many of a bank's views each picture gets."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from iir_sdk.data.dataset import CUTOUT_SET
from iir_sdk.data.folder import PictureSet
from iir_sdk.training.config import TrainingConfig

_LEAST_SHARE = 0.7
"""Of all views, what pictures' least numbers take at most: the others go by the sets' weights."""


class SetSize(NamedTuple):
    """Number of a set's classes, and of its pictures."""

    classes: int
    pictures: int


def set_weights(sizes: Mapping[str, SetSize], config: TrainingConfig) -> dict[str, float]:
    """The share of episodes that each set gets; they sum to 1.

    The main set and the cut-outs have the recipe's shares, where they are there. The others share the rest by the
    square root of their number of classes, less where they have fewer than ``enough_pictures``: neither do many small
    sets drown what has many classes, nor does one that has fifty drown them. Cut-outs without a share count as one
    class.
    """
    fixed = {config.bank.main_set: config.bank.main_weight}
    if config.bank.cutout_weight and config.bank.main_set != CUTOUT_SET:
        fixed[CUTOUT_SET] = config.bank.cutout_weight
    fixed = {name: weight for name, weight in fixed.items() if name in sizes}
    full = config.bank.enough_pictures
    others = {
        name: 1.0 if name == CUTOUT_SET else math.sqrt(size.classes) * min(1.0, size.pictures / full)
        for name, size in sizes.items()
        if name not in fixed
    }
    if not others:
        total = sum(fixed.values())
        return {name: weight / total if total else 1 / len(fixed) for name, weight in fixed.items()}
    left, total = 1 - sum(fixed.values()), sum(others.values())
    return fixed | {name: left * weight / total for name, weight in others.items()}


def draw_set(weights: Mapping[str, float], rng: random.Random) -> str:
    """A set, by :func:`set_weights`."""
    return rng.choices(list(weights), list(weights.values()))[0]


def fitting(config: TrainingConfig, sets: Sequence[PictureSet]) -> TrainingConfig:
    """The recipe with no more views than its largest number of views of a picture allows for these sets."""
    pictures = sum(len(_shown(s)) for s in sets)
    largest = config.bank.views_of_picture[1] * pictures
    return config.changed({"bank.views": min(config.bank.views, largest)}) if pictures else config


def planned_views(sets: Sequence[PictureSet], config: TrainingConfig) -> list[tuple[str, str]]:
    """The picture of each view, as (set, stem), in random order.

    Sets get views by :func:`set_weights`, but each picture at least and at most as many as ``views_of_picture`` says,
    where that many views allow it; the pictures of a set get the same number, or one more.
    """
    stems = {s.name: shown for s in sets if (shown := _shown(s))}
    sizes = {s.name: SetSize(len(s.classes), len(stems[s.name])) for s in sets if s.name in stems}
    weights = set_weights(sizes, config)
    counts = _allotted({name: len(shown) for name, shown in stems.items()}, weights, config)
    rng, planned = random.Random(f"{config.seed}/views"), []
    for name, shown in stems.items():
        each, more = divmod(counts[name], len(shown))
        planned += [(name, stem) for stem in (*shown * each, *rng.sample(shown, more))]
    rng.shuffle(planned)
    return planned


def _shown(pictures: PictureSet) -> list[str]:
    """Stems that have a mask."""
    return sorted({stem for stems in pictures.classes.values() for stem in stems})


def _allotted(pictures: Mapping[str, int], weights: Mapping[str, float], config: TrainingConfig) -> dict[str, int]:
    """Views by set, in proportion to its weight within the bounds of its pictures; they sum to ``views``."""
    if not pictures:
        return {}
    mean = config.bank.views / sum(pictures.values())
    least, most = min(config.bank.views_of_picture[0], _LEAST_SHARE * mean), max(config.bank.views_of_picture[1], mean)

    def within(scale: float) -> dict[str, float]:
        return {name: min(max(scale * weights[name], least * n), most * n) for name, n in pictures.items()}

    low, high = 0.0, 2.0 * max(most * n / max(weights[name], 1e-9) for name, n in pictures.items())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(within(middle).values()) < config.bank.views else (low, middle)
    exact = within(high)
    counts = Counter({name: int(share) for name, share in exact.items()})
    # Those that lose most by rounding down.
    order = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
    for i in range(config.bank.views - counts.total()):
        counts[order[i % len(order)]] += 1
    return dict(counts)
