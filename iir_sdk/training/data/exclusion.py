"""Keeps novel classes out of training, also under other sets' names for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from iir_sdk.training.data.folder import PictureSet

SYNONYMS: dict[str, tuple[str, ...]] = {
    "motorcycle": ("motorbike", "motor_scooter", "scooter", "racing_motorcycle"),
    "truck": ("lorry", "fire_engine", "pickup"),
    "cat": ("kitten", "cats"),
    "cow": ("cows", "calf", "bull", "ox"),
    "tie": ("necktie",),
    "snowboard": ("snowboarder",),
    "baseball_glove": ("glove", "gloves", "mitten", "mitt"),
    "bottle": ("bottles", "flask"),
    "knife": ("dagger", "sword"),
    "apple": ("apples",),
    "cake": ("cupcake", "shortcake", "fish_cake", "moon_cake"),
    "laptop": ("computer", "pc"),
    "cell_phone": ("phone", "telephone", "mobile"),
    "sink": ("basin",),
    "vase": ("amphora", "urn", "pot"),
}
"""Other names, in the sets at hand, for things close to a COCO class."""


def names_class(name: str, classes: Iterable[str]) -> bool:
    """Whether a class or file name holds one of ``classes``, or a synonym, as whole words."""
    words = _words(name)
    return any(_holds(words, _words(alias)) for c in classes for alias in (c, *SYNONYMS.get(c, ())))


def without_classes(sets: Sequence[PictureSet], novel: Sequence[str]) -> list[PictureSet]:
    """The sets without masks of the novel classes; pictures that show them stay (the unfiltered convention)."""
    kept = [s.without(_excluder(novel)) for s in sets]
    return [s for s in kept if s.classes]


def cutouts_without(files: Sequence[Path], novel: Sequence[str]) -> list[Path]:
    """The cut-outs whose file name holds none of the novel classes."""
    return [f for f in files if not names_class(f.stem, novel)]


def _excluder(novel: Sequence[str]) -> Callable[[str], bool]:
    return lambda name: names_class(name, novel)


def _words(name: str) -> list[str]:
    return [w for w in re.split(r"[^a-z]+", name.lower()) if w]


def _holds(words: list[str], part: list[str]) -> bool:
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))
