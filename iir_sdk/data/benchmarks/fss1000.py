"""FSS-1000: a thousand classes of ten pictures each (Li et al., 2020).

Layout: ``fewshot_data/<class>/<1..10>.jpg`` and ``.png`` (``fewshot_data.zip`` of the FSS-1000 release, research use)
and its list of test classes ``fss_test_set.txt``: 240; the other 760 train. Who keeps 240 of these for validation, as
HSNet does, lists them in ``fss_val_set.txt``: then 520 train. There are no folds, and no smallest object.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.part import BenchmarkPart
from iir_sdk.data.benchmarks.stored_files import picture_in, read_lines, read_white_mask, require
from iir_sdk.data.dataset import Selection
from iir_sdk.errors import DatasetError

FOLDS = 1
PICTURES = 10
_WHAT = "FSS-1000 (fewshot_data.zip, unpacked, and fss_test_set.txt)"


def read(root: Path, selection: Selection) -> BenchmarkPart:
    """FSS-1000's training or test classes; keys are ``<class>/<number>``."""
    selection.check_fold(FOLDS)
    folder = require(root / "fewshot_data", _WHAT, folder=True)
    there = {p.name for p in folder.iterdir() if p.is_dir()}
    test = set(read_lines(root / "fss_test_set.txt", _WHAT))
    if test - there:
        raise DatasetError(f"fss_test_set.txt lists {min(test - there)!r}, which is not in {folder}.")
    kept_back = root / "fss_val_set.txt"
    validation = set(read_lines(kept_back, _WHAT)) if kept_back.is_file() else set()
    wanted = sorted(test if selection.split == "test" else there - test - validation)
    classes = {c: tuple(f"{c}/{i}" for i in range(1, PICTURES + 1)) for c in wanted}
    return BenchmarkPart("fss1000", classes, partial(picture_in, folder, ".jpg", _WHAT), partial(_mask, folder))


def _mask(folder: Path, _: str, key: str) -> NDArray[np.uint8]:
    return read_white_mask(folder / f"{key}.png", _WHAT)


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    train, test = read(root, Selection(split="train")), read(root, Selection(split="test"))
    return {"training classes": len(train.classes), "test classes": len(test.classes)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have."""
    folders = sorted(p for p in (root / "fewshot_data").iterdir() if p.is_dir())
    return (folder / f"{i + 1}{suffix}" for folder in folders for i in range(PICTURES) for suffix in (".jpg", ".png"))
