"""Chest X-ray, cross-domain: lungs (Jaeger et al., 2014; Candemir et al., 2014).

Layout of Kaggle's "Chest Xray Masks and Labels", which joins the US National Library of Medicine's Montgomery and
Shenzhen sets (free for research with attribution) and their masks: ``CXR_png/<id>.png`` and ``masks/<id>.png`` or
``masks/<id>_mask.png``. One class, ``lung``; pictures without a mask are left out. There is no smallest object.
"""

from __future__ import annotations

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
_WHAT = "the Montgomery and Shenzhen chest X-rays with masks (CXR_png, masks)"


def read(root: Path, selection: Selection) -> BenchmarkPart:
    """The X-rays that have a mask."""
    selection.only_for_tests("Chest X-ray")
    folder = require(root / "CXR_png", _WHAT, folder=True)
    require(root / "masks", _WHAT, folder=True)
    stems = tuple(sorted(p.stem for p in folder.glob("*.png") if _mask_file(root, p.stem).is_file()))
    if not stems:
        raise DatasetError(f"no picture in {folder} has a mask in {root / 'masks'}.")
    return BenchmarkPart(
        "chest_xray", {"lung": stems}, partial(picture_in, folder, ".png", _WHAT), partial(_mask, root)
    )


def _mask(root: Path, _: str, key: str) -> NDArray[np.uint8]:
    return read_white_mask(_mask_file(root, key), _WHAT)


def _mask_file(root: Path, key: str) -> Path:
    suffixed = root / "masks" / f"{key}_mask.png"
    return suffixed if suffixed.is_file() else root / "masks" / f"{key}.png"


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    return {"pictures": len(read(root, Selection()).classes["lung"]), "classes": 1}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have: the pictures of all masks."""
    stems = sorted(mask.stem.removesuffix("_mask") for mask in (root / "masks").glob("*.png"))
    return (root / "CXR_png" / f"{stem}.png" for stem in stems)
