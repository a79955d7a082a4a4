"""PASCAL-Part: parts of VOC 2010's objects in four folds by kind, each object cropped to its box (Matcher, 2023).

Layout: ``Annotations_Part/*.mat`` (``trainval.tar.gz`` of PASCAL-Part, Chen et al., 2014, research use) beside
``VOCdevkit/VOC2010/{JPEGImages,ImageSets/Main/{train,val}.txt}`` (``VOCtrainval_03-May-2010.tar``).

Folds are animals, indoor things, people, vehicles. Left and right, front and back, and numbered parts are one class
each: ``lfpa`` and ``rbpa`` of a cat are ``cat:paw``, ``wheel_2`` of a bus is ``bus:wheel``. A key is
``<stem>#<object's number>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.part import BenchmarkPart, areas_of_crops, indexed_areas, select
from iir_sdk.data.benchmarks.stored_files import read_lines, read_matlab, read_picture, require
from iir_sdk.data.dataset import Selection

KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("animals", ("bird", "cat", "cow", "dog", "horse", "sheep")),
    ("indoor", ("bottle", "pottedplant", "tvmonitor")),
    ("person", ("person",)),
    ("vehicles", ("aeroplane", "bicycle", "bus", "car", "motorbike", "train")),
)
"""Folds, each with its objects."""

FOLDS = len(KINDS)
VOC = "VOCdevkit/VOC2010"
_WHAT = "PASCAL-Part's Annotations_Part (trainval.tar.gz, unpacked)"
_VOC_WHAT = "VOC 2010 (VOCtrainval_03-May-2010.tar, unpacked)"
_LIST = {"train": "train.txt", "test": "val.txt"}

_MERGED = (
    (re.compile(r"[lr](eye|ear|arm|hand|leg|foot|wing|horn)"), r"\1"),
    (re.compile(r"[lr]ebrow"), "eyebrow"),
    (re.compile(r"[lr][lu](arm|leg)"), r"\1"),
    (re.compile(r"[lr][fb][lu]?leg"), "leg"),
    (re.compile(r"[lr][fb]pa"), "paw"),
    (re.compile(r"[lr][fb]ho"), "hoof"),
    (re.compile(r"[fb]wheel"), "wheel"),
    (re.compile(r"[fb]liplate"), "plate"),
    (re.compile(r"(?:left|right)mirror"), "mirror"),
    (re.compile(r"(?:h|c)?(?:front|left|right|back|roof)side"), "side"),
)


def merged_part(name: str) -> str:
    """The class of a part: without side, end and number."""
    plain = re.sub(r"_?\d+$", "", name)
    for pattern, merged in _MERGED:
        if match := pattern.fullmatch(plain):
            return match.expand(merged)
    return plain


def read(root: Path, selection: Selection) -> BenchmarkPart:
    """PASCAL-Part's part of a selection, of crops."""
    selection.check_fold(FOLDS)
    stems = sorted(read_lines(root / VOC / "ImageSets" / "Main" / _LIST[selection.split], _VOC_WHAT))
    annotated = [s for s in stems if (root / "Annotations_Part" / f"{s}.mat").is_file()]
    if not annotated:
        require(root / "Annotations_Part" / f"{stems[0]}.mat", _WHAT)
    name = f"pascal-part-{selection.split}"
    areas = areas_of_crops(indexed_areas(root, name, annotated, lambda s: _areas(root, s)))
    kind, objects = KINDS[selection.fold]
    classes = sorted({name for seen in areas.values() for name in seen})
    selected = select(areas, classes, [c for c in classes if c.split(":")[0] in objects], selection)
    return BenchmarkPart(f"pascal_part-{kind}", selected, partial(_picture, root), partial(_mask, root))


def _picture(root: Path, key: str) -> NDArray[np.uint8]:
    stem, number = key.split("#")
    rows, columns, _ = read_objects(root, stem)[int(number)]
    return read_picture(root / VOC / "JPEGImages" / f"{stem}.jpg", _VOC_WHAT)[rows, columns]


def _mask(root: Path, name: str, key: str) -> NDArray[np.uint8]:
    stem, number = key.split("#")
    rows, columns, parts = read_objects(root, stem)[int(number)]
    return parts.get(name, np.zeros((rows.stop, columns.stop), np.uint8))[rows, columns]


@lru_cache(maxsize=64)
def read_objects(root: Path, stem: str) -> tuple[tuple[slice, slice, dict[str, NDArray[np.uint8]]], ...]:
    """Box (rows, columns) and parts of each object in a picture: masks of the whole picture, by class."""
    content = read_matlab(root / "Annotations_Part" / f"{stem}.mat", _WHAT)
    return tuple(_object(o) for o in np.atleast_1d(content["anno"].objects))


def _object(record: Any) -> tuple[slice, slice, dict[str, NDArray[np.uint8]]]:
    rows, columns = (np.flatnonzero(np.asarray(record.mask).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        # An object without a mask has no box; it keeps its number and shows nothing.
        return slice(0, 1), slice(0, 1), {}
    parts: dict[str, NDArray[np.uint8]] = {}
    for part in np.atleast_1d(record.parts):
        name = f"{record.__dict__['class']}:{merged_part(str(part.part_name))}"
        mask = (np.asarray(part.mask) > 0).astype(np.uint8)
        parts[name] = np.maximum(parts[name], mask) if name in parts else mask
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1), parts


def _areas(root: Path, stem: str) -> dict[str, int]:
    """``number#class`` -> pixels, for all objects of a picture."""
    return {
        f"{i}#{name}": int(mask[rows, columns].sum())
        for i, (rows, columns, parts) in enumerate(read_objects(root, stem))
        for name, mask in parts.items()
    }


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    require(root / "Annotations_Part", _WHAT, folder=True)
    return {"annotated pictures": len(list((root / "Annotations_Part").glob("*.mat"))), "folds": len(KINDS)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have: the pictures of all annotations."""
    return (root / VOC / "JPEGImages" / f"{a.stem}.jpg" for a in sorted((root / "Annotations_Part").glob("*.mat")))
