"""SUIM, cross-domain: underwater scenes (Islam et al., 2020).

Layout: ``TEST/images/<stem>.jpg`` and ``TEST/masks/<stem>.bmp`` of the SUIM release, found from
irvlab.cs.umn.edu (110 test pictures; its terms are the release's, for research). Seven classes by colour; the water
itself is background.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.part import BenchmarkPart, indexed_areas, label_areas, select
from iir_sdk.data.benchmarks.stored_files import Colour, mask_of, picture_in, read_colour_labels, require
from iir_sdk.data.dataset import Selection

FOLDS = 1
COLOURS: dict[str, Colour] = {
    "human_diver": (0, 0, 1),
    "plant": (0, 1, 0),
    "wreck": (0, 1, 1),
    "robot": (1, 0, 0),
    "reef": (1, 0, 1),
    "fish": (1, 1, 0),
    "sea_floor": (1, 1, 1),
}
_VALUES = {name: i + 1 for i, name in enumerate(COLOURS)}
_WHAT = "SUIM's TEST folder (images, masks)"


def read(root: Path, selection: Selection) -> BenchmarkPart:
    """SUIM's test pictures by class."""
    selection.only_for_tests("SUIM")
    folder = require(root / "TEST" / "masks", _WHAT, folder=True)
    stems = sorted(p.stem for p in folder.glob("*.bmp"))
    areas = indexed_areas(root, "suim", stems, lambda s: label_areas(read_labels(root, s), _VALUES))
    classes = select(areas, tuple(COLOURS), COLOURS, selection)
    picture = partial(picture_in, root / "TEST" / "images", ".jpg", _WHAT)
    return BenchmarkPart("suim", classes, picture, partial(_mask, root))


def _mask(root: Path, name: str, key: str) -> NDArray[np.uint8]:
    return mask_of(read_labels(root, key), _VALUES[name])


def read_labels(root: Path, stem: str) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers, 0 water."""
    return read_colour_labels(root / "TEST" / "masks" / f"{stem}.bmp", _WHAT, COLOURS)


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    classes = read(root, Selection()).classes
    return {"pictures": len(list((root / "TEST" / "masks").glob("*.bmp"))), "classes": len(classes)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have: the pictures of all masks."""
    return (root / "TEST" / "images" / f"{m.stem}.jpg" for m in sorted((root / "TEST" / "masks").glob("*.bmp")))
