"""Chest X-ray, cross-domain: lungs (Jaeger et al., 2014; Candemir et al., 2014).

Layout of Kaggle's "Chest Xray Masks and Labels", which joins the US National Library of Medicine's Montgomery and
Shenzhen sets (free for research with attribution) and their masks: ``CXR_png/<id>.png`` and ``masks/<id>.png`` or
``masks/<id>_mask.png``. One class, ``lung``; pictures without a mask are left out. There is no smallest object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.colour_coded import only_for_tests
from iir_sdk.data.dataset import Selection, read_picture, read_white_mask, require
from iir_sdk.errors import DatasetError

_WHAT = "the Montgomery and Shenzhen chest X-rays with masks (CXR_png, masks)"


@dataclass(frozen=True)
class ChestXray:
    """Chest X-rays, a :class:`FewShotDataset`.

    Attributes:
        root: holds ``CXR_png`` and ``masks``.
        classes: pictures of the one class.
        name: of the set.
    """

    root: Path
    classes: Mapping[str, tuple[str, ...]]
    name: str = "chest_xray"

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""
        return read_picture(self.root / "CXR_png" / f"{key}.png", _WHAT)

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)``: 0 and 1."""
        return read_white_mask(_mask_file(self.root, key), _WHAT)


def read_chest_xray(root: Path, selection: Selection) -> ChestXray:
    """The X-rays that have a mask.

    Raises:
        DatasetNotFoundError: a folder is missing; the message says which.
        DatasetError: a training split was asked for, or no picture has a mask.
    """
    only_for_tests(selection, "Chest X-ray")
    folder = require(root / "CXR_png", _WHAT, folder=True)
    require(root / "masks", _WHAT, folder=True)
    stems = tuple(sorted(p.stem for p in folder.glob("*.png") if _mask_file(root, p.stem).is_file()))
    if not stems:
        raise DatasetError(f"no picture in {folder} has a mask in {root / 'masks'}.")
    return ChestXray(root, {"lung": stems})


def _mask_file(root: Path, key: str) -> Path:
    suffixed = root / "masks" / f"{key}_mask.png"
    return suffixed if suffixed.is_file() else root / "masks" / f"{key}.png"


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    return {"pictures": len(read_chest_xray(root, Selection()).classes["lung"]), "classes": 1}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have: the pictures of all masks."""
    for mask in sorted((root / "masks").glob("*.png")):
        yield root / "CXR_png" / f"{mask.stem.removesuffix('_mask')}.png"
