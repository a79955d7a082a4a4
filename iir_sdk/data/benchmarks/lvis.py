"""LVIS-92i: 920 of LVIS v1's categories in ten folds of every tenth (Liu et al., Matcher, 2023).

Layout: ``lvis_v1_train.json`` and ``lvis_v1_val.json`` from lvisdataset.org (CC BY 4.0) beside COCO 2017's
``train2017/`` and ``val2017/`` (pictures under Flickr's terms of use); each record's ``coco_url`` says which holds it.

Tested on are the categories that at least two validation pictures show, by category id; trained on is every category
outside of the fold.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from iir_sdk.data.benchmarks.coco import AnnotatedPictures, Record
from iir_sdk.data.benchmarks.part import BenchmarkPart, interleaved_fold, select
from iir_sdk.data.dataset import Selection, Split

FOLDS = 10


def _picture_file(_: Split, record: Record) -> str:
    return "/".join(str(record["coco_url"]).split("/")[-2:])


LVIS = AnnotatedPictures(
    "LVIS v1 (lvis_v1_train.json, lvis_v1_val.json) and COCO 2017's pictures (train2017, val2017)",
    {"train": "lvis_v1_train.json", "test": "lvis_v1_val.json"},
    _picture_file,
)


def read(root: Path, selection: Selection) -> BenchmarkPart:
    """LVIS-92i's part of a selection; keys are picture ids."""
    selection.check_fold(FOLDS)
    fold, split = selection.fold, selection.split
    areas = LVIS.areas(root, split, f"lvis-{split}")
    tested = benchmark_classes(root)
    # Trained on is every category outside of the fold, also those with too few pictures to be tested on.
    offered = tuple(LVIS.annotations(root, split).categories.values()) if split == "train" else tested
    classes = select(areas, offered, interleaved_fold(tested, fold, FOLDS), selection)
    return BenchmarkPart(
        f"lvis-fold{fold}", classes, partial(LVIS.picture, root, split), partial(LVIS.mask, root, split)
    )


def benchmark_classes(root: Path) -> tuple[str, ...]:
    """Categories that at least two validation pictures show, by id; 920 in LVIS v1."""
    annotations = LVIS.annotations(root, "test")
    shown: Counter[int] = Counter()
    for of_one in annotations.of_image.values():
        shown.update({int(a["category_id"]) for a in of_one})
    return tuple(name for i, name in annotations.categories.items() if shown[i] >= 2)


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    return {**LVIS.census(root), "classes": len(benchmark_classes(root))}


files = LVIS.files
