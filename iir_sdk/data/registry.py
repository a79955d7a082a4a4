"""The benchmarks by name: how each is read, what its published copy counts, and whether a copy is that one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from iir_sdk.data import folder
from iir_sdk.data.benchmarks import (
    chest_xray,
    coco,
    deepglobe,
    fss1000,
    isic2018,
    lvis,
    paco_part,
    pascal,
    pascal_part,
    suim,
)
from iir_sdk.data.dataset import FewShotDataset, Selection
from iir_sdk.errors import DatasetError


class Reader(Protocol):
    """What each benchmark's module offers."""

    @property
    def FOLDS(self) -> int:
        """How many."""

    def read(self, root: Path, selection: Selection) -> FewShotDataset:
        """A copy's part of a selection."""

    def census(self, root: Path) -> Mapping[str, int]:
        """What a copy counts."""

    def files(self, root: Path) -> Iterable[Path]:
        """Every file that a copy must have."""


@dataclass(frozen=True)
class Benchmark:
    """One dataset that is known by name."""

    reader: Reader  # its module
    published: Mapping[str, int]  # what a copy should count
    layout: tuple[str, ...]  # what lies in its root; ``{a,b}`` are several, ``<id>`` is any name
    cross_domain: bool = False  # for testing only

    def read(self, root: Path, selection: Selection) -> FewShotDataset:
        """A copy's part of a selection."""
        return self.reader.read(root, selection)

    def missing_files(self, root: Path) -> list[Path]:
        """Files that a copy's lists and annotations name and that are not there."""
        return [file for file in self.reader.files(root) if not file.is_file()]


BENCHMARKS: Mapping[str, Benchmark] = {
    "pascal": Benchmark(
        pascal,
        {"training pictures": 10582, "test pictures": 1449, "classes": 20},
        (
            "VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}/",
            "benchmark_RELEASE/dataset/{cls/,train.txt,val.txt}",
        ),
    ),
    "coco": Benchmark(
        coco,
        {"training pictures": 82783, "test pictures": 40504, "classes": 80},
        ("{train2014,val2014}/", "annotations/instances_{train,val}2014.json"),
    ),
    "fss1000": Benchmark(
        fss1000,
        {"training classes": 760, "test classes": 240},
        ("fewshot_data/<class>/<number>.{jpg,png}", "fss_test_set.txt"),
    ),
    "lvis": Benchmark(
        lvis,
        {"training pictures": 100170, "test pictures": 19809, "classes": 920},
        ("{train2017,val2017}/", "lvis_v1_{train,val}.json"),
    ),
    "pascal_part": Benchmark(
        pascal_part,
        {"annotated pictures": 10103},
        ("Annotations_Part/<id>.mat", "VOCdevkit/VOC2010/{JPEGImages,ImageSets/Main}/"),
    ),
    "paco_part": Benchmark(paco_part, {"classes": 448}, ("{train2017,val2017}/", "paco_lvis_v1_{train,val}.json")),
    "deepglobe": Benchmark(
        deepglobe, {"pictures": 803, "tiles": 5666, "classes": 6}, ("train/<id>_{sat.jpg,mask.png}",), True
    ),
    "isic2018": Benchmark(
        isic2018,
        {"pictures": 2594, "classes": 3},
        (
            "ISIC2018_Task1-2_Training_Input/<id>.jpg",
            "ISIC2018_Task1_Training_GroundTruth/<id>_segmentation.png",
            "ISIC-2017_{Training,Validation,Test_v2}_Part3_GroundTruth.csv",
        ),
        True,
    ),
    "chest_xray": Benchmark(
        chest_xray, {"pictures": 704, "classes": 1}, ("CXR_png/<id>.png", "masks/<id>{,_mask}.png"), True
    ),
    "suim": Benchmark(suim, {"pictures": 110, "classes": 7}, ("TEST/images/<id>.jpg", "TEST/masks/<id>.bmp"), True),
    "folder": Benchmark(folder, {}, ("images/<id>.jpg", "masks/<class>/<id>.png")),
}
"""All of them; ``folder`` is one set of one's own."""


def benchmark(name: str) -> Benchmark:
    """The benchmark of a name; of any other, a DatasetError names those there are."""
    if name not in BENCHMARKS:
        raise DatasetError(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]
