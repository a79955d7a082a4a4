"""DeepGlobe land cover, cross-domain: satellite pictures in tiles (Demir et al., 2018; tiles as in PATNet, 2022).

Layout: ``train/<id>_sat.jpg`` and ``train/<id>_mask.png`` of the 2018 challenge (803 pictures of 2448 px), from
competitions.codalab.org or Kaggle's copy of the challenge; for research and education only.

Each picture is cut into 6 x 6 tiles of 408 px. Tiles that show a single class, or any pixel of unknown class, are left
out. A key is ``<id>#<row>,<column>``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.part import BenchmarkPart, areas_of_crops, indexed_areas, label_areas, select
from iir_sdk.data.benchmarks.stored_files import Colour, mask_of, read_colour_labels, read_picture, require
from iir_sdk.data.dataset import Selection

FOLDS = 1
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


def read(root: Path, selection: Selection) -> BenchmarkPart:
    """DeepGlobe's tiles by class."""
    selection.only_for_tests("DeepGlobe")
    folder = require(root / "train", _WHAT, folder=True)
    stems = sorted(p.name.removesuffix("_mask.png") for p in folder.glob("*_mask.png"))
    areas = areas_of_crops(indexed_areas(root, "deepglobe", stems, lambda stem: _areas(root, stem)))
    varied = {key: seen for key, seen in areas.items() if len(seen) > 1 and "unknown" not in seen}
    classes = select(varied, tuple(COLOURS), COLOURS, selection)
    return BenchmarkPart("deepglobe", classes, partial(_picture, root), partial(_mask, root))


def _picture(root: Path, key: str) -> NDArray[np.uint8]:
    return _tile(_whole_picture(root, key.split("#")[0]), key)


def _mask(root: Path, name: str, key: str) -> NDArray[np.uint8]:
    return mask_of(_tile(read_labels(root, key.split("#")[0]), key), _VALUES[name])


@lru_cache(maxsize=8)
def _whole_picture(root: Path, stem: str) -> NDArray[np.uint8]:
    return read_picture(root / "train" / f"{stem}_sat.jpg", _WHAT)


@lru_cache(maxsize=8)
def read_labels(root: Path, stem: str) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers, 0 unknown."""
    return read_colour_labels(root / "train" / f"{stem}_mask.png", _WHAT, COLOURS)


def _tile(pixels: NDArray[np.uint8], key: str) -> NDArray[np.uint8]:
    """The tile of a key, out of a picture or of its labels."""
    row, column = (int(n) for n in key.split("#")[1].split(","))
    height, width = pixels.shape[0] // TILES, pixels.shape[1] // TILES
    return pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]


def _areas(root: Path, stem: str) -> dict[str, int]:
    """``row,column#class`` -> pixels, for all tiles of a picture."""
    labels, values = read_labels(root, stem), {"unknown": 0, **_VALUES}
    return {
        f"{row},{column}#{name}": area
        for row in range(TILES)
        for column in range(TILES)
        for name, area in label_areas(_tile(labels, f"#{row},{column}"), values).items()
    }


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    classes = read(root, Selection()).classes
    tiles = {key for keys in classes.values() for key in keys}
    return {"pictures": len(list((root / "train").glob("*_mask.png"))), "tiles": len(tiles), "classes": len(classes)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have: the pictures of all masks."""
    masks = sorted((root / "train").glob("*_mask.png"))
    return (mask.with_name(mask.name.replace("_mask.png", "_sat.jpg")) for mask in masks)
