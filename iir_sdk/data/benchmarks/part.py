"""A benchmark's part: which pictures serve which class of a fold, by how much of it they show."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from iir_sdk.data.dataset import Selection
from iir_sdk.errors import DatasetError, OutputError
from iir_sdk.files import write_text_atomically

logger = logging.getLogger("iir_sdk")

Areas = dict[str, dict[str, int]]
"""Pixels of each class that a picture shows, by picture."""
FOLDER = ".iir_sdk"
MIN_AREA = 2 * 32 * 32
"""Fewest pixels by which a class must be seen for its picture to serve it, on the benchmarks (method, section 8)."""


@dataclass(frozen=True)
class BenchmarkPart:
    """One part of a benchmark, a :class:`FewShotDataset` whose pictures and masks are read when they are asked for."""

    name: str
    classes: Mapping[str, tuple[str, ...]]
    picture: Callable[[str], NDArray[np.uint8]]  # of a key, ``(H, W, 3)`` uint8 RGB
    mask: Callable[[str, str], NDArray[np.uint8]]  # of a class and a key, ``(H, W)``: 0, 1, 255 to ignore


@dataclass(frozen=True)
class DensePart(BenchmarkPart):
    """A part that is a :class:`DenseDataset`: it knows all classes of the split that a picture shows, however small."""

    seen: Mapping[str, tuple[str, ...]]


def block_fold(classes: Sequence[str], fold: int, folds: int) -> tuple[str, ...]:
    """Novel classes of a fold of neighbours: 0..n-1, n..2n-1 and so on, as PASCAL-5i has them."""
    size = len(classes) // folds
    return tuple(classes[fold * size : (fold + 1) * size])


def interleaved_fold(classes: Sequence[str], fold: int, folds: int) -> tuple[str, ...]:
    """Novel classes of a fold of every ``folds``-th class, as COCO-20i has them."""
    return tuple(classes[fold::folds])


def select(
    areas: Mapping[str, Mapping[str, int]],
    classes: Sequence[str],
    novel: Iterable[str],
    selection: Selection,
    *,
    min_area: int = MIN_AREA,
) -> dict[str, tuple[str, ...]]:
    """Keys of each wanted class in order, by the pixels of each that pictures show (method, section 8).

    Classes without a picture are left out; where all are, that is a DatasetError.
    """
    held_out = set(novel)
    train = selection.split == "train"
    wanted = [c for c in classes if (c in held_out) != train]
    lists: dict[str, list[str]] = {c: [] for c in wanted}
    for key in sorted(areas):
        # The convention leaves out a class that is seen in a crowd only, too, with an area of 0.
        if train and selection.convention == "filtered" and held_out & set(areas[key]):
            continue
        for name, area in areas[key].items():
            if name in lists and area >= min_area:
                lists[name].append(key)
    classes_shown = {c: tuple(keys) for c, keys in lists.items() if keys}
    if not classes_shown:
        raise DatasetError(f"no picture shows a class of fold {selection.fold}, {selection.split}, large enough.")
    return classes_shown


def seen_classes(
    areas: Mapping[str, Mapping[str, int]], classes: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Of each picture that serves a class (:func:`select`), all of those classes that it shows, however small."""
    serving = {key for keys in classes.values() for key in keys}
    return {key: tuple(c for c in areas[key] if c in classes) for key in sorted(serving)}


def label_areas(labels: NDArray[np.uint8], values: Mapping[str, int]) -> dict[str, int]:
    """Pixels of each class in a map of class numbers; classes that are not seen are left out."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return {name: int(counts[value]) for name, value in values.items() if counts[value]}


def indexed_areas(root: Path, name: str, keys: Sequence[str], measure: Callable[[str], dict[str, int]]) -> Areas:
    """Areas of every picture: read from ``root/.iir_sdk/areas-NAME.json`` if it is of these pictures, else counted."""
    file = root / FOLDER / f"areas-{name}.json"
    of = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    # An index that is missing or damaged is made again.
    with suppress(OSError, ValueError, KeyError, TypeError):
        index = json.loads(file.read_text(encoding="utf-8"))
        if index["of"] == of:
            areas: Areas = index["areas"]
            return areas
    areas = {key: measure(key) for key in tqdm(keys, desc=f"{name}: areas", unit="picture", disable=len(keys) < 500)}
    text = json.dumps({"of": of, "areas": areas})
    try:
        file.parent.mkdir(exist_ok=True)
        write_text_atomically(file, text)
    except (OutputError, OSError) as error:
        logger.warning("%s; the areas of %s will be counted again next time.", error, name)
    return areas


def areas_of_crops(by_picture: Areas) -> Areas:
    """An index by picture of ``<crop>#<class>`` -> an index by ``<picture>#<crop>`` of the class."""
    areas: Areas = {}
    for stem, seen in by_picture.items():
        for place, area in seen.items():
            crop, name = place.split("#")
            areas.setdefault(f"{stem}#{crop}", {})[name] = area
    return areas
