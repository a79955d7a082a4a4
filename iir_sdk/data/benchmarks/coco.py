"""COCO-20i: COCO 2014's 80 categories in four folds of every fourth (Nguyen and Todorovic, 2019).

Layout, as cocodataset.org's archives unpack: ``train2014/``, ``val2014/`` and
``annotations/instances_{train,val}2014.json`` (annotations CC BY 4.0, pictures under Flickr's terms of use).

Training pictures are ``train2014`` (82,783), test pictures ``val2014`` (40,504). Crowds, which have no instances of
their own, are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.area_index import indexed_areas
from iir_sdk.data.benchmarks.coco_masks import Annotations, class_mask, read_annotations
from iir_sdk.data.dataset import Selection, Split, interleaved_fold, read_picture, seen_classes, select

FOLDS = 4
_WHAT = "COCO 2014 (train2014.zip, val2014.zip, annotations_trainval2014.zip, unpacked)"
_PART = {"train": "train2014", "test": "val2014"}


@dataclass(frozen=True)
class Coco20i:
    """One part of COCO-20i, a :class:`FewShotDataset`; keys are picture ids.

    Attributes:
        root: holds the archives' folders.
        split: which of them.
        classes: pictures by class.
        seen: all classes of the split that a picture shows, however small.
        name: of the set.
    """

    root: Path
    split: Split
    classes: Mapping[str, tuple[str, ...]]
    seen: Mapping[str, tuple[str, ...]]
    name: str = "coco"

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""
        file = read_part(self.root, self.split).images[int(key)]["file_name"]
        return read_picture(self.root / _PART[self.split] / str(file), _WHAT)

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)``: 0, 1, and 255 on crowds."""
        annotations = read_part(self.root, self.split)
        return class_mask(annotations, int(key), annotations.category(name))


def read_coco(root: Path, selection: Selection) -> Coco20i:
    """COCO-20i's part of a selection.

    Raises:
        DatasetNotFoundError: a file is missing; the message says which.
        DatasetError: no such fold, a broken annotation file, or nothing is left.
    """
    selection.check_fold(FOLDS)
    annotations = read_part(root, selection.split)
    classes = tuple(annotations.categories.values())
    keys = [str(i) for i in sorted(annotations.of_image) if i in annotations.images]
    areas = indexed_areas(root, f"coco-{_PART[selection.split]}", keys, lambda k: image_areas(annotations, int(k)))
    novel = interleaved_fold(classes, selection.fold, FOLDS)
    found = select(areas, classes, novel, selection)
    return Coco20i(root, selection.split, found, seen_classes(areas, found), f"coco-fold{selection.fold}")


def read_part(root: Path, split: Split) -> Annotations:
    """Annotations of a split."""
    return read_annotations(root / "annotations" / f"instances_{_PART[split]}.json", _WHAT)


def image_areas(annotations: Annotations, image: int) -> dict[str, int]:
    """Pixels of each category in a picture, instances of one merged; categories seen in crowds only have 0."""
    seen = sorted({int(a["category_id"]) for a in annotations.of_image.get(image, ())})
    return {annotations.categories[c]: int((class_mask(annotations, image, c) == 1).sum()) for c in seen}


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    train, test = read_part(root, "train"), read_part(root, "test")
    return {
        "training pictures": len(train.images),
        "test pictures": len(test.images),
        "classes": len(test.categories),
    }


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have."""
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        for record in read_part(root, split).images.values():
            yield root / _PART[split] / str(record["file_name"])
