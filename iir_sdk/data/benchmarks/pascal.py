"""PASCAL-5i: PASCAL VOC 2012 with the extra masks of SBD (Shaban et al., 2017; folds by class number).

Layout, as the two archives unpack side by side:

- ``VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}``: ``VOCtrainval_11-May-2012.tar`` from
  host.robots.ox.ac.uk/pascal/VOC/voc2012 (Flickr's terms of use);
- ``benchmark_RELEASE/dataset/{cls/*.mat,train.txt,val.txt}``: ``benchmark.tgz`` of the Semantic Boundaries Dataset
  (Hariharan et al., 2011), research use.

Training pictures are SBD's and VOC's training pictures without VOC's validation pictures (10,582), test pictures VOC's
validation pictures (1,449). Object borders, which VOC leaves open, are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.benchmarks.part import DensePart, block_fold, indexed_areas, label_areas, seen_classes, select
from iir_sdk.data.benchmarks.stored_files import mask_of, picture_in, read_lines, read_matlab, stored_pixels
from iir_sdk.data.dataset import Selection

CLASSES = tuple(
    """
    aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep
    sofa train tvmonitor
    """.split()  # noqa: SIM905
)
FOLDS = 4
VOC = "VOCdevkit/VOC2012"
SBD = "benchmark_RELEASE/dataset"
_VOC_WHAT = "VOC 2012 (VOCtrainval_11-May-2012.tar, unpacked)"
_SBD_WHAT = "the Semantic Boundaries Dataset (benchmark.tgz, unpacked)"
_VALUES = {name: i + 1 for i, name in enumerate(CLASSES)}


def read(root: Path, selection: Selection) -> DensePart:
    """PASCAL-5i's part of a selection."""
    selection.check_fold(FOLDS)
    stems = split_stems(root)[selection.split]
    name, fold = f"pascal-{selection.split}", selection.fold
    areas = indexed_areas(root, name, stems, lambda s: label_areas(read_labels(root, s), _VALUES))
    classes = select(areas, CLASSES, block_fold(CLASSES, fold, FOLDS), selection)
    picture = partial(picture_in, root / VOC / "JPEGImages", ".jpg", _VOC_WHAT)
    return DensePart(f"pascal-fold{fold}", classes, picture, partial(_mask, root), seen_classes(areas, classes))


def _mask(root: Path, name: str, key: str) -> NDArray[np.uint8]:
    return mask_of(read_labels(root, key), _VALUES[name])


def split_stems(root: Path) -> dict[str, tuple[str, ...]]:
    """Training and test pictures, sorted."""
    lists = root / VOC / "ImageSets" / "Segmentation"
    test = set(read_lines(lists / "val.txt", _VOC_WHAT))
    train = set(read_lines(lists / "train.txt", _VOC_WHAT))
    for part in ("train.txt", "val.txt"):
        train |= set(read_lines(root / SBD / part, _SBD_WHAT))
    return {"train": tuple(sorted(train - test)), "test": tuple(sorted(test))}


def read_labels(root: Path, stem: str) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers, 0 background, 255 ignore: VOC's own mask where there is one, else SBD's."""
    file = _labels_file(root, stem)
    if file.suffix == ".png":
        return stored_pixels(file, _VOC_WHAT)
    return np.asarray(read_matlab(file, _SBD_WHAT)["GTcls"].Segmentation, np.uint8)


def _labels_file(root: Path, stem: str) -> Path:
    of_voc = root / VOC / "SegmentationClass" / f"{stem}.png"
    return of_voc if of_voc.is_file() else root / SBD / "cls" / f"{stem}.mat"


def census(root: Path) -> dict[str, int]:
    """What a copy counts."""
    stems = split_stems(root)
    return {"training pictures": len(stems["train"]), "test pictures": len(stems["test"]), "classes": len(CLASSES)}


def files(root: Path) -> Iterator[Path]:
    """Every file that a copy must have."""
    for stem in sorted({s for stems in split_stems(root).values() for s in stems}):
        yield root / VOC / "JPEGImages" / f"{stem}.jpg"
        yield _labels_file(root, stem)
