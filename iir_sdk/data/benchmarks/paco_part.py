"""PACO-Part: object parts of PACO-LVIS in four folds of every fourth, each object cropped to its box (Matcher, 2023).

Layout: ``paco_lvis_v1_train.json`` and ``paco_lvis_v1_val.json`` from the PACO release (Ramanathan et al., 2023,
MIT licence) beside COCO 2017's ``train2017/`` and ``val2017/``.

The classes are the part categories, such as ``chair:leg``, that the training file's crops show: 448.
A key is ``<picture id>#<object's annotation id>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.coco import AnnotatedPictures, Record
from iir_sdk.data.benchmarks.part import BenchmarkPart, indexed_areas, interleaved_fold, select
from iir_sdk.data.dataset import Selection, Split
from iir_sdk.formats.rle import decode

FOLDS = 4


def _picture_file(_: Split, record: Record) -> str:
    return str(record["file_name"])


PACO = AnnotatedPictures(
    "PACO-LVIS v1 (paco_lvis_v1_train.json, paco_lvis_v1_val.json) and COCO 2017's pictures (train2017, val2017)",
    {"train": "paco_lvis_v1_train.json", "test": "paco_lvis_v1_val.json"},
    _picture_file,
)


def read(root: Path, selection: Selection) -> BenchmarkPart:
    """PACO-Part's part of a selection, of crops."""
    selection.check_fold(FOLDS)
    fold, split = selection.fold, selection.split
    classes = benchmark_classes(root)
    areas = indexed_areas(root, f"paco-{split}", sorted(_parts(root, split)), lambda k: _areas(root, split, k))
    selected = select(areas, classes, interleaved_fold(classes, fold, FOLDS), selection)
    picture, mask = partial(_picture, root, split), partial(part_mask, root, split)
    return BenchmarkPart(f"paco_part-fold{fold}", selected, picture, mask)


def benchmark_classes(root: Path) -> tuple[str, ...]:
    """Part categories that the training file's crops show, by id."""
    shown = {int(p["category_id"]) for parts in _parts(root, "train").values() for p in parts}
    return tuple(name for i, name in PACO.annotations(root, "train").categories.items() if i in shown)


def part_mask(root: Path, split: Split, name: str, key: str) -> NDArray[np.uint8]:
    """``(H, W)`` of one part in the crop of its object: 0 and 1."""
    annotations = PACO.annotations(root, split)
    record = annotations.images[int(key.split("#")[0])]
    size = (int(record["height"]), int(record["width"]))
    mask = np.zeros(size, np.bool_)
    for part in _parts(root, split)[key]:
        if annotations.categories[int(part["category_id"])] == name:
            mask |= decode(part["segmentation"], size)
    return mask[_box(root, split, key)].astype(np.uint8)


def _picture(root: Path, split: Split, key: str) -> NDArray[np.uint8]:
    return PACO.picture(root, split, key.split("#")[0])[_box(root, split, key)]


@lru_cache(maxsize=2)
def _parts(root: Path, split: Split) -> Mapping[str, list[Record]]:
    """Part annotations of each crop; an object's own annotation is one whose id is not another object's part."""
    parts: dict[str, list[Record]] = {}
    for image, of_one in PACO.annotations(root, split).of_image.items():
        for a in of_one:
            if a.get("obj_ann_id", a["id"]) != a["id"]:
                parts.setdefault(f"{image}#{a['obj_ann_id']}", []).append(a)
    return parts


def _box(root: Path, split: Split, key: str) -> tuple[slice, slice]:
    """Rows and columns of a crop's object."""
    image, instance = (int(part) for part in key.split("#"))
    of_object = next(a for a in PACO.annotations(root, split).of_image[image] if a["id"] == instance)
    x, y, width, height = of_object["bbox"]
    top, left = int(y), int(x)
    bottom, right = max(top + 1, int(np.ceil(y + height))), max(left + 1, int(np.ceil(x + width)))
    return slice(top, bottom), slice(left, right)


def _areas(root: Path, split: Split, key: str) -> dict[str, int]:
    categories = PACO.annotations(root, split).categories
    names = sorted({categories[int(p["category_id"])] for p in _parts(root, split)[key]})
    return {name: int(part_mask(root, split, name, key).sum()) for name in names}


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    return {"classes": len(benchmark_classes(root))}


files = PACO.files
