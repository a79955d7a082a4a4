"""FSS-1000: a thousand classes of ten pictures each (Li et al., 2020).

Layout: ``fewshot_data/<class>/<1..10>.jpg`` and ``.png`` (``fewshot_data.zip`` of the FSS-1000 release, research use)
and its list of test classes ``fss_test_set.txt``: 240; the other 760 train. Who keeps 240 of these for validation, as
HSNet does, lists them in ``fss_val_set.txt``: then 520 train. There are no folds, and no smallest object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.dataset import Selection, read_lines, read_picture, read_white_mask, require
from iir_sdk.errors import DatasetError

PICTURES = 10
_WHAT = "FSS-1000 (fewshot_data.zip, unpacked, and fss_test_set.txt)"


@dataclass(frozen=True)
class Fss1000:
    """One part of FSS-1000, a :class:`FewShotDataset`; keys are ``<class>/<number>``.

    Attributes:
        root: holds ``fewshot_data``.
        classes: pictures by class.
        name: of the set.
    """

    root: Path
    classes: Mapping[str, tuple[str, ...]]
    name: str = "fss1000"

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""
        return read_picture(self.root / "fewshot_data" / f"{key}.jpg", _WHAT)

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)``: 0 and 1."""
        return read_white_mask(self.root / "fewshot_data" / f"{key}.png", _WHAT)


def read_fss1000(root: Path, selection: Selection) -> Fss1000:
    """FSS-1000's training or test classes.

    Raises:
        DatasetNotFoundError: a file is missing; the message says which.
        DatasetError: a listed class is not there.
    """
    selection.check_fold(1)
    folder = require(root / "fewshot_data", _WHAT, folder=True)
    there = {p.name for p in folder.iterdir() if p.is_dir()}
    test = set(read_lines(root / "fss_test_set.txt", _WHAT))
    if test - there:
        raise DatasetError(f"fss_test_set.txt lists {min(test - there)!r}, which is not in {folder}.")
    kept_back = root / "fss_val_set.txt"
    validation = set(read_lines(kept_back, _WHAT)) if kept_back.is_file() else set()
    wanted = sorted(test if selection.split == "test" else there - test - validation)
    return Fss1000(root, {c: tuple(f"{c}/{i}" for i in range(1, PICTURES + 1)) for c in wanted})


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    train, test = read_fss1000(root, Selection(split="train")), read_fss1000(root, Selection(split="test"))
    return {"training classes": len(train.classes), "test classes": len(test.classes)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have."""
    for folder in sorted(p for p in (root / "fewshot_data").iterdir() if p.is_dir()):
        for i in range(1, PICTURES + 1):
            yield folder / f"{i}.jpg"
            yield folder / f"{i}.png"
