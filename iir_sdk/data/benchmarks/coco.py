"""COCO-20i: COCO 2014's 80 categories in four folds of every fourth (Nguyen and Todorovic, 2019).

Layout, as cocodataset.org's archives unpack: ``train2014/``, ``val2014/`` and
``annotations/instances_{train,val}2014.json`` (annotations CC BY 4.0, pictures under Flickr's terms of use).

Training pictures are ``train2014`` (82,783), test pictures ``val2014`` (40,504). Crowds, which have no instances of
their own, are ignored.

LVIS and PACO share its annotation format: records, and masks as polygons and run lengths (pycocotools).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.part import Areas, DensePart, indexed_areas, interleaved_fold, seen_classes, select
from iir_sdk.data.benchmarks.stored_files import read_picture, require
from iir_sdk.data.dataset import IGNORE, Selection, Split
from iir_sdk.errors import DatasetError
from iir_sdk.formats.rle import decode

FOLDS = 4
Record = Mapping[str, Any]
_USED = ("id", "category_id", "iscrowd", "bbox", "obj_ann_id", "segmentation")
"""What is used of an annotation; the files are gigabytes, and every worker holds a copy."""


@dataclass(frozen=True)
class Annotations:
    """One annotation file."""

    images: Mapping[int, Record]  # by id
    categories: Mapping[int, str]  # names by id, sorted by it
    of_image: Mapping[int, Sequence[Record]]  # annotations by picture's id

    def category(self, name: str) -> int:
        """The id of a category."""
        return next(i for i, n in self.categories.items() if n == name)


@lru_cache(maxsize=4)
def read_annotations(path: Path, what: str) -> Annotations:
    """Read an annotation file, kept for further calls; a DatasetError where it is missing or not in COCO's format."""
    try:
        document = json.loads(require(path, what).read_bytes())
        images = {int(i["id"]): i for i in document["images"]}
        categories = {int(c["id"]): str(c["name"]) for c in sorted(document["categories"], key=lambda c: c["id"])}
        of_image: dict[int, list[Record]] = defaultdict(list)
        for annotation in document["annotations"]:
            of_image[int(annotation["image_id"])].append({k: annotation[k] for k in _USED if k in annotation})
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is not in COCO's annotation format: {error!r}.") from error
    return Annotations(images, categories, of_image)


@dataclass(frozen=True)
class AnnotatedPictures:
    """A benchmark in this format: its name in messages, its annotation files and a picture's file, below the root."""

    what: str
    annotation_files: Mapping[Split, str]
    picture_file: Callable[[Split, Record], str]

    def annotations(self, root: Path, split: Split) -> Annotations:
        """Of a split; raises as :func:`read_annotations` does."""
        return read_annotations(root / self.annotation_files[split], self.what)

    def picture(self, root: Path, split: Split, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB; a key is a picture's id."""
        record = self.annotations(root, split).images[int(key)]
        return read_picture(root / self.picture_file(split, record), self.what)

    def mask(self, root: Path, split: Split, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)`` of a category in a picture, as :func:`class_mask` gives it."""
        annotations = self.annotations(root, split)
        return class_mask(annotations, int(key), annotations.category(name))

    def areas(self, root: Path, split: Split, index: str) -> Areas:
        """Of every picture that has annotations, kept under the name ``index``."""
        annotations = self.annotations(root, split)
        keys = [str(i) for i in sorted(annotations.of_image) if i in annotations.images]
        return indexed_areas(root, index, keys, lambda key: image_areas(annotations, int(key)))

    def census(self, root: Path) -> dict[str, int]:
        """How many pictures a copy has."""
        pictures = {split: len(self.annotations(root, split).images) for split in self.annotation_files}
        return {"training pictures": pictures["train"], "test pictures": pictures["test"]}

    def files(self, root: Path) -> Iterator[Path]:
        """Every picture that a copy must have."""
        for split in self.annotation_files:
            for record in self.annotations(root, split).images.values():
                yield root / self.picture_file(split, record)


def image_areas(annotations: Annotations, image: int) -> dict[str, int]:
    """Pixels of each category in a picture, instances of one merged; categories seen in crowds only have 0."""
    seen = sorted({int(a["category_id"]) for a in annotations.of_image.get(image, ())})
    return {annotations.categories[c]: int((class_mask(annotations, image, c) == 1).sum()) for c in seen}


def class_mask(annotations: Annotations, image: int, category: int) -> NDArray[np.uint8]:
    """``(H, W)``: 1 on all instances of a category, 255 on crowds of it outside them, else 0."""
    record = annotations.images[image]
    size = (int(record["height"]), int(record["width"]))
    mask = np.zeros(size, np.uint8)
    of_category = [a for a in annotations.of_image.get(image, ()) if a["category_id"] == category]
    for annotation in sorted(of_category, key=lambda a: -int(a.get("iscrowd", 0))):
        mask[decode(annotation["segmentation"], size)] = IGNORE if annotation.get("iscrowd") else 1
    return mask


_PART: dict[Split, str] = {"train": "train2014", "test": "val2014"}


def _picture_file(split: Split, record: Record) -> str:
    return f"{_PART[split]}/{record['file_name']}"


COCO = AnnotatedPictures(
    "COCO 2014 (train2014.zip, val2014.zip, annotations_trainval2014.zip, unpacked)",
    {split: f"annotations/instances_{part}.json" for split, part in _PART.items()},
    _picture_file,
)


def read(root: Path, selection: Selection) -> DensePart:
    """COCO-20i's part of a selection; keys are picture ids."""
    selection.check_fold(FOLDS)
    fold, split = selection.fold, selection.split
    areas = COCO.areas(root, split, f"coco-{_PART[split]}")
    categories = tuple(COCO.annotations(root, split).categories.values())
    classes = select(areas, categories, interleaved_fold(categories, fold, FOLDS), selection)
    picture, mask = partial(COCO.picture, root, split), partial(COCO.mask, root, split)
    return DensePart(f"coco-fold{fold}", classes, picture, mask, seen_classes(areas, classes))


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    return {**COCO.census(root), "classes": len(COCO.annotations(root, "test").categories)}


files = COCO.files
