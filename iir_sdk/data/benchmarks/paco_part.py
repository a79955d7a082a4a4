"""PACO-Part: object parts of PACO-LVIS in four folds of every fourth, each object cropped to its box (Matcher, 2023).

Layout: ``paco_lvis_v1_train.json`` and ``paco_lvis_v1_val.json`` from the PACO release (Ramanathan et al., 2023,
MIT licence) beside COCO 2017's ``train2017/`` and ``val2017/``.

The classes are the part categories, such as ``chair:leg``, that the training file's crops show: 448.
A key is ``<picture id>#<object's annotation id>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.area_index import indexed_areas
from iir_sdk.data.benchmarks.coco_masks import Annotations, decode, read_annotations
from iir_sdk.data.dataset import Selection, Split, interleaved_fold, read_picture, select

FOLDS = 4
_WHAT = "PACO-LVIS v1 (paco_lvis_v1_train.json, paco_lvis_v1_val.json) and COCO 2017's pictures (train2017, val2017)"
_FILE = {"train": "paco_lvis_v1_train.json", "test": "paco_lvis_v1_val.json"}


@dataclass(frozen=True)
class PacoPart:
    """One part of PACO-Part, a :class:`FewShotDataset` of crops.

    Attributes:
        root: holds the annotation files and the pictures' folders.
        split: which annotation file.
        classes: crops by class.
        name: of the set.
    """

    root: Path
    split: Split
    classes: Mapping[str, tuple[str, ...]]
    name: str = "paco_part"

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB, the object's box."""
        image, rows, columns = _crop(self.root, self.split, key)
        file = str(read_part(self.root, self.split).images[image]["file_name"])
        return read_picture(self.root / file, _WHAT)[rows, columns]

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)``: 0 and 1, the object's box."""
        return part_mask(self.root, self.split, key, name)


def read_paco_part(root: Path, selection: Selection) -> PacoPart:
    """PACO-Part's part of a selection.

    Raises:
        DatasetNotFoundError: a file is missing; the message says which.
        DatasetError: no such fold, a broken annotation file, or nothing is left.
    """
    selection.check_fold(FOLDS)
    classes = benchmark_classes(root)
    keys = sorted(_parts(root, selection.split))
    areas = indexed_areas(root, f"paco-{selection.split}", keys, lambda k: _areas(root, selection.split, k))
    novel = interleaved_fold(classes, selection.fold, FOLDS)
    found = select(areas, classes, novel, selection)
    return PacoPart(root, selection.split, found, f"paco_part-fold{selection.fold}")


def benchmark_classes(root: Path) -> tuple[str, ...]:
    """Part categories that the training file's crops show, by id."""
    shown = {int(p["category_id"]) for parts in _parts(root, "train").values() for p in parts}
    return tuple(name for i, name in read_part(root, "train").categories.items() if i in shown)


def read_part(root: Path, split: Split) -> Annotations:
    """Annotations of a split."""
    return read_annotations(root / _FILE[split], _WHAT)


def part_mask(root: Path, split: Split, key: str, name: str) -> NDArray[np.uint8]:
    """``(H, W)`` of one part in the crop of its object."""
    image, rows, columns = _crop(root, split, key)
    annotations = read_part(root, split)
    size = (int(annotations.images[image]["height"]), int(annotations.images[image]["width"]))
    mask = np.zeros(size, np.bool_)
    for part in _parts(root, split)[key]:
        if annotations.categories[int(part["category_id"])] == name:
            mask |= decode(part["segmentation"], size)
    return mask[rows, columns].astype(np.uint8)


@lru_cache(maxsize=2)
def _parts(root: Path, split: Split) -> Mapping[str, list[Mapping[str, Any]]]:
    """Part annotations of each crop; an object's own annotation is one whose id is not another object's part."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for image, of_one in read_part(root, split).of_image.items():
        for a in of_one:
            if a.get("obj_ann_id", a["id"]) != a["id"]:
                found.setdefault(f"{image}#{a['obj_ann_id']}", []).append(a)
    return found


def _crop(root: Path, split: Split, key: str) -> tuple[int, slice, slice]:
    image, instance = (int(part) for part in key.split("#"))
    own = next(a for a in read_part(root, split).of_image[image] if a["id"] == instance)
    x, y, width, height = own["bbox"]
    top, left = int(y), int(x)
    return (
        image,
        slice(top, max(top + 1, int(np.ceil(y + height)))),
        slice(left, max(left + 1, int(np.ceil(x + width)))),
    )


def _areas(root: Path, split: Split, key: str) -> dict[str, int]:
    categories = read_part(root, split).categories
    names = sorted({categories[int(p["category_id"])] for p in _parts(root, split)[key]})
    return {name: int(part_mask(root, split, key, name).sum()) for name in names}


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    return {"classes": len(benchmark_classes(root))}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have."""
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        for record in read_part(root, split).images.values():
            yield root / str(record["file_name"])
