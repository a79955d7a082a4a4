"""ISIC 2018 task 1, cross-domain: skin lesions by diagnosis (Codella et al., 2019; classes as in PATNet, 2022).

Layout: ``ISIC2018_Task1-2_Training_Input/<id>.jpg``, ``ISIC2018_Task1_Training_GroundTruth/<id>_segmentation.png``
(CC0, 2,594 pictures), and the diagnoses from ISIC 2017, where these pictures come from:
``ISIC-2017_{Training,Validation,Test_v2}_Part3_GroundTruth.csv``.

A picture whose diagnosis is in none of the lists is left out. There is no smallest object.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.part import BenchmarkPart
from iir_sdk.data.benchmarks.stored_files import picture_in, read_white_mask, require
from iir_sdk.data.dataset import Selection
from iir_sdk.errors import DatasetError

FOLDS = 1
CLASSES = ("melanoma", "nevus", "seborrheic_keratosis")
PICTURES, MASKS = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"
LISTS = tuple(f"ISIC-2017_{part}_Part3_GroundTruth.csv" for part in ("Training", "Validation", "Test_v2"))
_WHAT = "ISIC 2018 task 1's training pictures and ground truth"
_LIST_WHAT = "ISIC 2017's part 3 ground truth (three .csv files)"


def read(root: Path, selection: Selection) -> BenchmarkPart:
    """ISIC 2018's pictures by diagnosis."""
    selection.only_for_tests("ISIC 2018")
    folder = require(root / PICTURES, _WHAT, folder=True)
    diagnosis = _diagnoses(root)
    stems = sorted(p.stem for p in folder.glob("*.jpg"))
    by_class = {name: tuple(s for s in stems if diagnosis.get(s) == name) for name in CLASSES}
    classes = {name: shown for name, shown in by_class.items() if shown}
    if not classes:
        raise DatasetError(f"no picture in {folder} has a diagnosis in {', '.join(LISTS)}.")
    return BenchmarkPart("isic2018", classes, partial(picture_in, folder, ".jpg", _WHAT), partial(_mask, root))


def _mask(root: Path, _: str, key: str) -> NDArray[np.uint8]:
    return read_white_mask(root / MASKS / f"{key}_segmentation.png", _WHAT)


def _diagnoses(root: Path) -> dict[str, str]:
    diagnosis = {}
    for name in LISTS:
        with require(root / name, _LIST_WHAT).open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                melanoma, keratosis = (float(row[c]) > 0 for c in ("melanoma", "seborrheic_keratosis"))
                diagnosis[row["image_id"]] = CLASSES[0] if melanoma else CLASSES[2] if keratosis else CLASSES[1]
    return diagnosis


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    classes = read(root, Selection()).classes
    return {"pictures": sum(map(len, classes.values())), "classes": len(classes)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have: the masks of all pictures."""
    return (root / MASKS / f"{p.stem}_segmentation.png" for p in sorted((root / PICTURES).glob("*.jpg")))
