"""The benchmarks by name: how each is read, and what its published copy counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
from iir_sdk.data.folder import read_picture_set
from iir_sdk.errors import DatasetError


@dataclass(frozen=True)
class Benchmark:
    """One dataset that is known by name.

    Attributes:
        read: its part of a selection.
        folds: how many.
        census: what a copy counts.
        published: what it should count.
        files: every file that a copy must have.
        layout: what lies in its root; ``{a,b}`` are several, ``<id>`` is any name.
        cross_domain: for testing only.
    """

    read: Callable[[Path, Selection], FewShotDataset]
    folds: int
    census: Callable[[Path], Mapping[str, int]]
    published: Mapping[str, int]
    files: Callable[[Path], Iterable[Path]]
    layout: tuple[str, ...]
    cross_domain: bool = False


def _read_folder(root: Path, selection: Selection) -> FewShotDataset:
    selection.check_fold(1)
    return read_picture_set(root)


def _folder_census(root: Path) -> dict[str, int]:
    found = read_picture_set(root)
    return {"pictures": len(found.images), "classes": len(found.classes)}


def _folder_files(root: Path) -> Iterable[Path]:
    return read_picture_set(root).images.values()


BENCHMARKS: Mapping[str, Benchmark] = {
    "pascal": Benchmark(
        pascal.read_pascal,
        pascal.FOLDS,
        pascal.census,
        {"training pictures": 10582, "test pictures": 1449, "classes": 20},
        pascal.files,
        (
            "VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}/",
            "benchmark_RELEASE/dataset/{cls/,train.txt,val.txt}",
        ),
    ),
    "coco": Benchmark(
        coco.read_coco,
        coco.FOLDS,
        coco.census,
        {"training pictures": 82783, "test pictures": 40504, "classes": 80},
        coco.files,
        ("{train2014,val2014}/", "annotations/instances_{train,val}2014.json"),
    ),
    "fss1000": Benchmark(
        fss1000.read_fss1000,
        1,
        fss1000.census,
        {"training classes": 760, "test classes": 240},
        fss1000.files,
        ("fewshot_data/<class>/<number>.{jpg,png}", "fss_test_set.txt"),
    ),
    "lvis": Benchmark(
        lvis.read_lvis,
        lvis.FOLDS,
        lvis.census,
        {"training pictures": 100170, "test pictures": 19809, "classes": 920},
        lvis.files,
        ("{train2017,val2017}/", "lvis_v1_{train,val}.json"),
    ),
    "pascal_part": Benchmark(
        pascal_part.read_pascal_part,
        len(pascal_part.KINDS),
        pascal_part.census,
        {"annotated pictures": 10103},
        pascal_part.files,
        ("Annotations_Part/<id>.mat", "VOCdevkit/VOC2010/{JPEGImages,ImageSets/Main}/"),
    ),
    "paco_part": Benchmark(
        paco_part.read_paco_part,
        paco_part.FOLDS,
        paco_part.census,
        {"classes": 448},
        paco_part.files,
        ("{train2017,val2017}/", "paco_lvis_v1_{train,val}.json"),
    ),
    "deepglobe": Benchmark(
        deepglobe.read_deepglobe,
        1,
        deepglobe.census,
        {"pictures": 803, "tiles": 5666, "classes": 6},
        deepglobe.files,
        ("train/<id>_{sat.jpg,mask.png}",),
        True,
    ),
    "isic2018": Benchmark(
        isic2018.read_isic2018,
        1,
        isic2018.census,
        {"pictures": 2594, "classes": 3},
        isic2018.files,
        (
            "ISIC2018_Task1-2_Training_Input/<id>.jpg",
            "ISIC2018_Task1_Training_GroundTruth/<id>_segmentation.png",
            "ISIC-2017_{Training,Validation,Test_v2}_Part3_GroundTruth.csv",
        ),
        True,
    ),
    "chest_xray": Benchmark(
        chest_xray.read_chest_xray,
        1,
        chest_xray.census,
        {"pictures": 704, "classes": 1},
        chest_xray.files,
        ("CXR_png/<id>.png", "masks/<id>{,_mask}.png"),
        True,
    ),
    "suim": Benchmark(
        suim.read_suim,
        1,
        suim.census,
        {"pictures": 110, "classes": 7},
        suim.files,
        ("TEST/images/<id>.jpg", "TEST/masks/<id>.bmp"),
        True,
    ),
    "folder": Benchmark(
        _read_folder, 1, _folder_census, {}, _folder_files, ("images/<id>.jpg", "masks/<class>/<id>.png")
    ),
}
"""All of them; ``folder`` is one set of one's own."""


def benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        DatasetError: there is none; the message names those there are.
    """
    if name not in BENCHMARKS:
        raise DatasetError(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]
