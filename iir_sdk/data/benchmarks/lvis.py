"""LVIS-92i: 920 of LVIS v1's categories in ten folds of every tenth (Liu et al., Matcher, 2023).

Layout: ``lvis_v1_train.json`` and ``lvis_v1_val.json`` from lvisdataset.org (CC BY 4.0) beside COCO 2017's
``train2017/`` and ``val2017/`` (pictures under Flickr's terms of use); each record's ``coco_url`` says which holds it.

Tested on are the categories that at least two validation pictures show, by category id; trained on is every category
outside of the fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.area_index import indexed_areas
from iir_sdk.data.benchmarks.coco import image_areas
from iir_sdk.data.benchmarks.coco_masks import Annotations, class_mask, read_annotations
from iir_sdk.data.dataset import Selection, Split, interleaved_fold, read_picture, select

FOLDS = 10
_WHAT = "LVIS v1 (lvis_v1_train.json, lvis_v1_val.json) and COCO 2017's pictures (train2017, val2017)"
_FILE = {"train": "lvis_v1_train.json", "test": "lvis_v1_val.json"}


@dataclass(frozen=True)
class Lvis92i:
    """One part of LVIS-92i, a :class:`FewShotDataset`; keys are picture ids.

    Attributes:
        root: holds the annotation files and the pictures' folders.
        split: which annotation file.
        classes: pictures by class.
        name: of the set.
    """

    root: Path
    split: Split
    classes: Mapping[str, tuple[str, ...]]
    name: str = "lvis"

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""
        folder, file = str(read_part(self.root, self.split).images[int(key)]["coco_url"]).split("/")[-2:]
        return read_picture(self.root / folder / file, _WHAT)

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)``: 0 and 1."""
        annotations = read_part(self.root, self.split)
        return class_mask(annotations, int(key), annotations.category(name))


def read_lvis(root: Path, selection: Selection) -> Lvis92i:
    """LVIS-92i's part of a selection.

    Raises:
        DatasetNotFoundError: a file is missing; the message says which.
        DatasetError: no such fold, a broken annotation file, or nothing is left.
    """
    selection.check_fold(FOLDS)
    annotations = read_part(root, selection.split)
    # Trained on is every category outside of the fold, also those with too few pictures to be tested on.
    offered = tuple(annotations.categories.values()) if selection.split == "train" else benchmark_classes(root)
    keys = [str(i) for i in sorted(annotations.of_image) if i in annotations.images]
    areas = indexed_areas(root, f"lvis-{selection.split}", keys, lambda k: image_areas(annotations, int(k)))
    novel = interleaved_fold(benchmark_classes(root), selection.fold, FOLDS)
    return Lvis92i(root, selection.split, select(areas, offered, novel, selection), f"lvis-fold{selection.fold}")


def benchmark_classes(root: Path) -> tuple[str, ...]:
    """Categories that at least two validation pictures show, by id; 920 in LVIS v1."""
    annotations = read_part(root, "test")
    shown: Counter[int] = Counter()
    for of_one in annotations.of_image.values():
        shown.update({int(a["category_id"]) for a in of_one})
    return tuple(name for i, name in annotations.categories.items() if shown[i] >= 2)


def read_part(root: Path, split: Split) -> Annotations:
    """Annotations of a split."""
    return read_annotations(root / _FILE[split], _WHAT)


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    return {
        "training pictures": len(read_part(root, "train").images),
        "test pictures": len(read_part(root, "test").images),
        "classes": len(benchmark_classes(root)),
    }


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have."""
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        for record in read_part(root, split).images.values():
            yield root.joinpath(*str(record["coco_url"]).split("/")[-2:])
