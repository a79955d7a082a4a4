"""DeepGlobe land cover, cross-domain: satellite pictures in tiles (Demir et al., 2018; tiles as in PATNet, 2022).

Layout: ``train/<id>_sat.jpg`` and ``train/<id>_mask.png`` of the 2018 challenge (803 pictures of 2448 px), from
competitions.codalab.org or Kaggle's copy of the challenge; for research and education only.

Each picture is cut into 6 x 6 tiles of 408 px. Tiles that show a single class, or any pixel of unknown class, are left
out. A key is ``<id>#<row>,<column>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.area_index import indexed_areas
from iir_sdk.data.benchmarks.colour_coded import Colour, only_for_tests, read_colour_labels
from iir_sdk.data.dataset import Selection, label_areas, mask_of, read_picture, require, select

COLOURS: dict[str, Colour] = {
    "urban": (0, 1, 1),
    "agriculture": (1, 1, 0),
    "rangeland": (1, 0, 1),
    "forest": (0, 1, 0),
    "water": (0, 0, 1),
    "barren": (1, 1, 1),
}
TILES = 6
_VALUES = {name: i + 1 for i, name in enumerate(COLOURS)}
_WHAT = "DeepGlobe land cover's train folder (<id>_sat.jpg, <id>_mask.png)"


@dataclass(frozen=True)
class DeepGlobe:
    """DeepGlobe's tiles, a :class:`FewShotDataset`.

    Attributes:
        root: holds ``train``.
        classes: tiles by class.
        name: of the set.
    """

    root: Path
    classes: Mapping[str, tuple[str, ...]]
    name: str = "deepglobe"

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""
        stem = key.split("#")[0]
        whole = _whole_picture(self.root, stem)
        return whole[_tile(key, (whole.shape[0], whole.shape[1]))]

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)``: 0 and 1."""
        labels = read_labels(self.root, key.split("#")[0])
        return mask_of(labels[_tile(key, (labels.shape[0], labels.shape[1]))], _VALUES[name])


def read_deepglobe(root: Path, selection: Selection) -> DeepGlobe:
    """DeepGlobe's tiles by class.

    Raises:
        DatasetNotFoundError: a file is missing; the message says which.
        DatasetError: a training split was asked for, or nothing is left.
    """
    only_for_tests(selection, "DeepGlobe")
    folder = require(root / "train", _WHAT, folder=True)
    stems = sorted(p.name.removesuffix("_mask.png") for p in folder.glob("*_mask.png"))
    by_picture = indexed_areas(root, "deepglobe", stems, lambda stem: _areas(root, stem))
    areas: dict[str, dict[str, int]] = {}
    for stem, seen in by_picture.items():
        for place, area in seen.items():
            tile, name = place.split("#")
            areas.setdefault(f"{stem}#{tile}", {})[name] = area
    kept = {key: seen for key, seen in areas.items() if len(seen) > 1 and "unknown" not in seen}
    return DeepGlobe(root, select(kept, tuple(COLOURS), COLOURS, selection))


@lru_cache(maxsize=8)
def read_labels(root: Path, stem: str) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers, 0 unknown."""
    return read_colour_labels(root / "train" / f"{stem}_mask.png", _WHAT, COLOURS)


@lru_cache(maxsize=8)
def _whole_picture(root: Path, stem: str) -> NDArray[np.uint8]:
    return read_picture(root / "train" / f"{stem}_sat.jpg", _WHAT)


def _tile(key: str, size: tuple[int, int]) -> tuple[slice, slice]:
    row, column = (int(n) for n in key.split("#")[1].split(","))
    height, width = size[0] // TILES, size[1] // TILES
    return slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)


def _areas(root: Path, stem: str) -> dict[str, int]:
    labels = read_labels(root, stem)
    size = (labels.shape[0], labels.shape[1])
    found: dict[str, int] = {}
    for row in range(TILES):
        for column in range(TILES):
            seen = label_areas(labels[_tile(f"#{row},{column}", size)], {"unknown": 0, **_VALUES})
            found |= {f"{row},{column}#{name}": area for name, area in seen.items()}
    return found


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    found = read_deepglobe(root, Selection()).classes
    tiles = {key for keys in found.values() for key in keys}
    return {"pictures": len(list((root / "train").glob("*_mask.png"))), "tiles": len(tiles), "classes": len(found)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have: the pictures of all masks."""
    for mask in sorted((root / "train").glob("*_mask.png")):
        yield mask.with_name(mask.name.replace("_mask.png", "_sat.jpg"))
