"""SUIM, cross-domain: underwater scenes (Islam et al., 2020).

Layout: ``TEST/images/<stem>.jpg`` and ``TEST/masks/<stem>.bmp`` of the SUIM release, found from
irvlab.cs.umn.edu (110 test pictures; its terms are the release's, for research). Seven classes by colour; the water
itself is background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.area_index import indexed_areas
from iir_sdk.data.benchmarks.colour_coded import Colour, only_for_tests, read_colour_labels
from iir_sdk.data.dataset import Selection, label_areas, mask_of, read_picture, require, select

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


@dataclass(frozen=True)
class Suim:
    """SUIM's test pictures, a :class:`FewShotDataset`.

    Attributes:
        root: holds ``TEST``.
        classes: pictures by class.
        name: of the set.
    """

    root: Path
    classes: Mapping[str, tuple[str, ...]]
    name: str = "suim"

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""
        return read_picture(self.root / "TEST" / "images" / f"{key}.jpg", _WHAT)

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)``: 0 and 1."""
        return mask_of(read_labels(self.root, key), _VALUES[name])


def read_suim(root: Path, selection: Selection) -> Suim:
    """SUIM's test pictures by class.

    Raises:
        DatasetNotFoundError: a file is missing; the message says which.
        DatasetError: a training split was asked for, or nothing is left.
    """
    only_for_tests(selection, "SUIM")
    folder = require(root / "TEST" / "masks", _WHAT, folder=True)
    stems = sorted(p.stem for p in folder.glob("*.bmp"))
    areas = indexed_areas(root, "suim", stems, lambda s: label_areas(read_labels(root, s), _VALUES))
    return Suim(root, select(areas, tuple(COLOURS), COLOURS, selection))


def read_labels(root: Path, stem: str) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers, 0 water."""
    return read_colour_labels(root / "TEST" / "masks" / f"{stem}.bmp", _WHAT, COLOURS)


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    found = read_suim(root, Selection()).classes
    return {"pictures": len(list((root / "TEST" / "masks").glob("*.bmp"))), "classes": len(found)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have: the pictures of all masks."""
    for mask in sorted((root / "TEST" / "masks").glob("*.bmp")):
        yield root / "TEST" / "images" / f"{mask.stem}.jpg"
