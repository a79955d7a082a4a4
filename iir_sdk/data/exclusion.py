"""Keeps novel classes out of training, also under other sets' names for them."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from iir_sdk.data.dataset import CUTOUT_SET
from iir_sdk.data.folder import PictureSet
from iir_sdk.errors import DatasetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KNOWN = tomllib.loads(Path(__file__).with_name("synonyms.toml").read_text(encoding="utf-8"))

SYNONYMS: dict[str, list[str]] = {name: others.split() for name, others in _KNOWN["synonyms"].items()}
"""Other names for things close to a COCO class."""
HOLDS: dict[str, list[str]] = _KNOWN["holds"]
"""COCO classes that the masks of a ``set/class`` take in."""
PARTS_OF: dict[str, list[str]] = _KNOWN["parts_of"]
"""COCO classes that all of a set's classes are parts of."""

_TELLING = re.compile(r"(?:^|[^0-9a-z])[a-z]{2}", re.IGNORECASE)
"""What a name has that is more than numbers, as emoji's code points are: a word, which no digit begins."""


def names_class(name: str, classes: Iterable[str]) -> bool:
    """Whether a class or file name holds one of ``classes``, or a synonym, as whole words."""
    words = _spaced(name)
    return any(_spaced(alias) in words for c in classes for alias in (c, *SYNONYMS.get(c, ())))


def without_classes(sets: Sequence[PictureSet], novel: Sequence[str]) -> list[PictureSet]:
    """The sets without masks of the novel classes; pictures that show them stay (the unfiltered convention)."""
    left = [s.only([name for name in s.classes if not shows_any(s.name, name, novel)]) for s in sets]
    return [s for s in left if s.classes]


def without_sets(sets: Sequence[PictureSet], names: Sequence[str]) -> list[PictureSet]:
    """The sets but for those named, perhaps with :data:`CUTOUT_SET`; a DatasetError for a name that is no set's."""
    known = sorted({s.name for s in sets} | {CUTOUT_SET})
    for name in names:
        if name not in known:
            raise DatasetError(f"cannot leave out {name!r}: there are {', '.join(known)}; name some of these.")
    return [s for s in sets if s.name not in names]


def only_named(sets: Sequence[PictureSet], names: Sequence[str]) -> list[PictureSet]:
    """The sets named, whole or, by ``set/stem``, with these pictures alone; all where there are no names.

    Names of cut-outs may be among them; what is no set's, or no picture's, is a DatasetError.
    """
    if not names:
        return list(sets)
    known = {s.name: s for s in sets}
    for set_name, _, stem in (name.partition("/") for name in names):
        if set_name != CUTOUT_SET and (set_name not in known or (stem and stem not in known[set_name].images)):
            raise DatasetError(
                f"cannot use {set_name}{stem and '/'}{stem} alone: there are {', '.join(sorted(known))}; name some of "
                "these, or pictures of them as set/stem."
            )
    return among(sets, names)


def among(sets: Sequence[PictureSet], names: Sequence[str]) -> list[PictureSet]:
    """As :func:`only_named`, whatever else the names name."""
    whole, stems = set(names), defaultdict(set)
    for set_name, _, stem in (name.partition("/") for name in names):
        stems[set_name].add(stem)
    chosen = [s if s.name in whole else s.of_pictures(stems[s.name]) for s in sets if s.name in stems]
    return [s for s in chosen if s.classes]


def cutouts_among(files: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The cut-outs whose folder is named, as ``cutouts/folder``; ``cutouts`` names all, as no names do."""
    if not names or CUTOUT_SET in names:
        return list(files)
    return [f for f in files if f"{CUTOUT_SET}/{f.parent.name}" in names]


def cutouts_without(files: Sequence[Path], novel: Sequence[str]) -> list[Path]:
    """The cut-outs whose file name holds none of the novel classes, and says what they show where there are any."""
    return [f for f in files if not novel or (_TELLING.search(f.stem) and not names_class(f.stem, novel))]


def shows_any(set_name: str, name: str, classes: Sequence[str]) -> bool:
    """Whether a set's class takes in one of COCO's ``classes``: by what is known of the set, else by its name."""
    shown = HOLDS.get(f"{set_name}/{name}", PARTS_OF.get(set_name))
    return names_class(name, classes) if shown is None else any(c in classes for c in shown)


def name_words(name: str) -> tuple[str, ...]:
    """The words of a class's or a set's name, in the singular where their end tells."""
    return tuple(re.sub("(?<=..)s$", "", re.sub("(?<=..)ies$", "y", word)) for word in _spaced(name).split())


def _spaced(name: str) -> str:
    """Its words, each between spaces."""
    return f" {re.sub('[^a-z]+', ' ', name.lower()).strip()} "
