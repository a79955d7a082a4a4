"""Tiny copies of the benchmarks in their official layouts: a few generated pictures, the real annotation formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from iir_sdk.data.benchmarks import pascal

SIDE = 100
BOX = (slice(10, 70), slice(20, 80))  # 3,600 pixels: more than 2 * 32 * 32
SMALL = (slice(0, 40), slice(0, 50))  # 2,000 pixels: fewer


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def voc_labels(value: int, where: tuple[slice, slice] = BOX, other: int = 0) -> np.ndarray:
    """A class in a box with a border to ignore, and another class in the last rows."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[where] = value
    labels[where[0], where[1].stop] = 255
    labels[75:, :] = other
    return labels


def pascal_tree(root: Path) -> Path:
    """``a`` to ``e``: VOC masks; ``s1``, ``s2``: SBD masks; ``c`` and ``v`` are VOC's validation pictures."""
    from scipy.io import savemat

    voc, sbd = root / pascal.VOC, root / pascal.SBD
    number = {name: i + 1 for i, name in enumerate(pascal.CLASSES)}
    own = {
        "a": voc_labels(number["bus"]),
        "b": voc_labels(number["bus"], other=number["bird"]),
        "c": voc_labels(number["bird"]),
        "v": voc_labels(number["cat"], SMALL, other=number["boat"]),
    }
    palette = [v for i in range(256) for v in (i, 255 - i, i // 2)]
    for i, (stem, labels) in enumerate(own.items()):
        mask = Image.fromarray(labels, mode="P")
        mask.putpalette(palette)
        (voc / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        mask.save(voc / "SegmentationClass" / f"{stem}.png")
        picture(voc / "JPEGImages" / f"{stem}.jpg", i)
    (sbd / "cls").mkdir(parents=True)
    for stem, name in (("s1", "bus"), ("s2", "train"), ("c", "cow")):
        labels = voc_labels(number[name])
        labels[labels == 255] = 0
        savemat(sbd / "cls" / f"{stem}.mat", {"GTcls": {"Segmentation": labels, "Boundaries": 0}})
        picture(voc / "JPEGImages" / f"{stem}.jpg", 9)
    lists = voc / "ImageSets" / "Segmentation"
    write_lines(lists / "train.txt", ["a", "b"])
    write_lines(lists / "val.txt", ["c", "v"])
    write_lines(sbd / "train.txt", ["s1", "a"])
    write_lines(sbd / "val.txt", ["s2", "c"])
    return root


def polygon(rows: slice, columns: slice) -> list[list[float]]:
    top, bottom, left, right = rows.start, rows.stop, columns.start, columns.stop
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask: np.ndarray, *, compressed: bool) -> dict:
    """COCO's run lengths of a mask: as a string, or as counts down the columns, background first."""
    from pycocotools import mask as rle

    if compressed:
        encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    flat = mask.astype(np.uint8).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if flat[0] else lengths}


def boxed(where: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[where] = 1
    return mask


def annotation(number: int, image: int, category: int, segmentation: object, **more: object) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


COCO_NAMES = ["person", "bicycle", "car", "motorcycle", "airplane"]


def coco_tree(root: Path) -> Path:
    """Five categories, ids with gaps as COCO's; instances as polygons and both kinds of run lengths."""
    categories = [{"id": i, "name": name} for i, name in zip((1, 2, 3, 4, 9), COCO_NAMES, strict=True)]
    crowd = runs(boxed((slice(60, 100), slice(0, 100))), compressed=False)
    parts = {
        "train2014": [
            annotation(1, 1, 2, polygon(*BOX)),
            annotation(2, 2, 3, runs(boxed(BOX), compressed=True), iscrowd=0),
            annotation(3, 2, 1, polygon(slice(0, 5), slice(0, 5))),
            annotation(4, 3, 3, polygon(*SMALL)),
        ],
        "val2014": [
            annotation(5, 7, 1, polygon(slice(10, 50), slice(20, 80))),
            annotation(6, 7, 1, polygon(slice(50, 70), slice(20, 80))),
            annotation(7, 7, 1, crowd, iscrowd=1),
            annotation(8, 8, 9, runs(boxed(BOX), compressed=False)),
        ],
    }
    (root / "annotations").mkdir(parents=True)
    for part, instances in parts.items():
        images = []
        for i in sorted({a["image_id"] for a in instances}):
            name = f"COCO_{part}_{i:012d}.jpg"
            picture(root / part / name, i)
            images.append({"id": i, "file_name": name, "height": SIDE, "width": SIDE})
        document = {"images": images, "categories": categories, "annotations": instances}
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(document))
    return root


def lvis_tree(root: Path) -> Path:
    """Twelve categories; all but the last are in two validation pictures or more."""
    categories = [{"id": i + 1, "name": f"thing_{i + 1}"} for i in range(12)]
    for split, first in (("train", 100), ("val", 200)):
        images, annotations = [], []
        for i in range(2):
            # Some of LVIS's validation pictures are of COCO's training folder.
            folder = "train2017" if i == 0 else "val2017"
            images.append(
                {
                    "id": first + i,
                    "coco_url": f"http://images.cocodataset.org/{folder}/{first + i:012d}.jpg",
                    "height": SIDE,
                    "width": SIDE,
                }
            )
            picture(root / folder / f"{first + i:012d}.jpg", i)
            for c in range(1, 12 if i else 13):
                annotations.append(annotation(first * 100 + i * 20 + c, first + i, c, polygon(*BOX)))
        document = {"images": images, "categories": categories, "annotations": annotations}
        (root / f"lvis_v1_{split}.json").write_text(json.dumps(document))
    return root


def paco_tree(root: Path) -> Path:
    """A chair with legs and a back in each picture, and a lamp's shade in one."""
    categories = [
        {"id": 1, "name": "chair", "supercategory": "OBJECT"},
        {"id": 10, "name": "chair:leg", "supercategory": "PART"},
        {"id": 11, "name": "chair:back", "supercategory": "PART"},
        {"id": 12, "name": "lamp:shade", "supercategory": "PART"},
    ]
    for split in ("train", "val"):
        images, annotations = [], []
        for i in range(2):
            images.append({"id": i, "file_name": f"{split}2017/{i:012d}.jpg", "height": SIDE, "width": SIDE})
            picture(root / f"{split}2017" / f"{i:012d}.jpg", i)
            chair = 10 * i + 1
            annotations += [
                annotation(chair, i, 1, polygon(*BOX), bbox=[15, 5, 70, 80], obj_ann_id=chair),
                annotation(
                    chair + 1, i, 10, polygon(slice(40, 70), slice(20, 80)), obj_ann_id=chair, bbox=[0, 0, 1, 1]
                ),
                annotation(
                    chair + 2, i, 10, polygon(slice(70, 80), slice(20, 80)), obj_ann_id=chair, bbox=[0, 0, 1, 1]
                ),
                annotation(chair + 3, i, 11, polygon(slice(5, 40), slice(20, 80)), obj_ann_id=chair, bbox=[0, 0, 1, 1]),
            ]
            if i == 0:
                annotations.append(annotation(9, i, 12, polygon(*BOX), obj_ann_id=chair, bbox=[0, 0, 1, 1]))
        document = {"images": images, "categories": categories, "annotations": annotations}
        (root / f"paco_lvis_v1_{split}.json").write_text(json.dumps(document))
    return root


def pascal_part_tree(root: Path) -> Path:
    """A cat with two ears and a tail, a bus with two wheels, in each split."""
    from scipy.io import savemat

    voc = root / "VOCdevkit" / "VOC2010"
    (root / "Annotations_Part").mkdir(parents=True)
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for split in lists:
        for i, (kind, parts) in enumerate(
            (
                (
                    "cat",
                    {"lear": (slice(10, 60), slice(10, 60)), "rear": (slice(10, 60), slice(60, 90)), "tail": SMALL},
                ),
                ("bus", {"wheel_1": (slice(50, 90), slice(0, 30)), "wheel_2": (slice(50, 90), slice(40, 70))}),
            )
        ):
            stem = f"{split}_{i}"
            lists[split].append(stem)
            picture(voc / "JPEGImages" / f"{stem}.jpg", i)
            whole = boxed((slice(5, 95), slice(0, 95)))
            own = [{"part_name": name, "mask": boxed(where)} for name, where in parts.items()]
            anno = {"imname": stem, "objects": [{"class": kind, "class_ind": 1, "mask": whole, "parts": own}]}
            savemat(root / "Annotations_Part" / f"{stem}.mat", {"anno": anno})
        write_lines(voc / "ImageSets" / "Main" / f"{split}.txt", [*lists[split], f"{split}_unannotated"])
    return root


def fss_tree(root: Path) -> Path:
    for i, name in enumerate(("abacus", "bell", "cup")):
        for n in range(1, 11):
            picture(root / "fewshot_data" / name / f"{n}.jpg", i)
            Image.fromarray(boxed(BOX) * 255).save(root / "fewshot_data" / name / f"{n}.png")
    write_lines(root / "fss_test_set.txt", ["bell"])
    return root


def colour_mask(path: Path, areas: dict[tuple[int, int, int], tuple[slice, slice]], side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((side, side, 3), np.uint8)
    for colour, where in areas.items():
        mask[where] = np.array(colour) * 255
    Image.fromarray(mask).save(path)


def deepglobe_tree(root: Path) -> Path:
    """600 px in 6 x 6 tiles: first water and forest, then forest, then partly unknown, the rest unknown."""
    picture(root / "train" / "7_sat.jpg", size=(600, 600))
    areas = {(0, 1, 0): (slice(0, 100), slice(0, 250)), (0, 0, 1): (slice(0, 50), slice(0, 100))}
    colour_mask(root / "train" / "7_mask.png", areas, 600)
    return root


def isic_tree(root: Path) -> Path:
    rows = {"ISIC_1": (1, 0), "ISIC_2": (0, 1), "ISIC_3": (0, 0), "ISIC_4": None}
    for i, name in enumerate(rows):
        picture(root / "ISIC2018_Task1-2_Training_Input" / f"{name}.jpg", i)
        folder = root / "ISIC2018_Task1_Training_GroundTruth"
        folder.mkdir(exist_ok=True)
        Image.fromarray(boxed(BOX) * 255).save(folder / f"{name}_segmentation.png")
    for part, names in (("Training", ["ISIC_1"]), ("Validation", ["ISIC_2"]), ("Test_v2", ["ISIC_3"])):
        lines = ["image_id,melanoma,seborrheic_keratosis"]
        lines += [f"{n},{float(rows[n][0])},{float(rows[n][1])}" for n in names]  # type: ignore[index]
        write_lines(root / f"ISIC-2017_{part}_Part3_GroundTruth.csv", lines)
    return root


def chest_tree(root: Path) -> Path:
    (root / "masks").mkdir(parents=True)
    for i, mask in enumerate(("MCUCXR_0.png", "CHNCXR_1_mask.png")):
        picture(root / "CXR_png" / f"{mask.removesuffix('.png').removesuffix('_mask')}.png", i)
        Image.fromarray(boxed(BOX) * 255).save(root / "masks" / mask)
    picture(root / "CXR_png" / "CHNCXR_2.png")
    return root


def suim_tree(root: Path) -> Path:
    picture(root / "TEST" / "images" / "d_1.jpg")
    colour_mask(root / "TEST" / "masks" / "d_1.bmp", {(1, 1, 0): BOX, (1, 0, 1): (slice(75, 100), slice(0, 100))})
    return root
