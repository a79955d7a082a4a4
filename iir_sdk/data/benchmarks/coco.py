"""COCO-20i: COCO 2014's 80 categories in four folds of every fourth (Nguyen and Todorovic, 2019).

Layout, as cocodataset.org's archives unpack: ``train2014/``, ``val2014/`` and
``annotations/instances_{train,val}2014.json`` (annotations CC BY 4.0, pictures under Flickr's terms of use).

Training pictures are ``train2014`` (82,783), test pictures ``val2014`` (40,504). Crowds, which have no instances of
their own, are ignored.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from iir_sdk.data.benchmarks.coco_format import AnnotatedPictures, Record
from iir_sdk.data.benchmarks.part import DensePart, interleaved_fold, seen_classes, select
from iir_sdk.data.dataset import Selection, Split

FOLDS = 4
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
