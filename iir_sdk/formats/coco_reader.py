"""Masks from COCO's annotation files: polygons, and run lengths of both kinds, of things and of crowds."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError, IirWarning, MaskError
from iir_sdk.formats.annotated import AnnotatedMask, PathLike, check_marks, picture_files, polygon_points
from iir_sdk.formats.rle import decode

UNKNOWN = 255
Record = Mapping[str, Any]


class Pictured(NamedTuple):
    """A picture as the file has it."""

    name: str  # of its file
    size: tuple[int, int]  # height, width


def read_coco(file: Path, document: Mapping[str, Any], images: PathLike | None) -> Iterator[AnnotatedMask]:
    """A mask for each category in each picture of a file, in the order of its pictures; raises as the door does."""
    pictures, categories, groups = _grouped(file, document)
    order = {number: i for i, number in enumerate(pictures)}
    folders = [file.parent, file.parent / "images", file.parent.parent / "images", file.parent.parent]
    names = [pictures[picture].name for picture, _ in groups]
    paths = picture_files(file, names, folders, images)
    for (picture, category), records in sorted(groups.items(), key=lambda group: order[group[0][0]]):
        pictured = pictures[picture]
        mask = _mask(file, pictured, records)
        if (mask == 1).any():
            yield AnnotatedMask(paths[pictured.name], categories[category], mask)
        else:
            warnings.warn(
                f"{str(file)!r} marks {categories[category]!r} in {pictured.name!r} by crowds alone, which show no "
                "single thing; it is left out. Set iscrowd to 0 where the mask is right.",
                IirWarning,
                stacklevel=2,
            )


def _grouped(
    file: Path, document: Mapping[str, Any]
) -> tuple[dict[Any, Pictured], dict[Any, str], dict[tuple[Any, Any], list[Record]]]:
    """Pictures and categories by number, and the annotations of each category in each picture."""
    try:
        pictures = {
            record["id"]: Pictured(str(record["file_name"]), (int(record["height"]), int(record["width"])))
            for record in document["images"]
        }
        categories = {record["id"]: str(record["name"]) for record in document["categories"]}
        groups: dict[tuple[Any, Any], list[Record]] = defaultdict(list)
        for annotation in document["annotations"]:
            groups[annotation["image_id"], annotation["category_id"]].append(annotation)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{str(file)!r} is not in COCO's annotation format: {error!r}.") from error
    for picture, category in groups:
        if category not in categories:
            known = ", ".join(f"{number} ({name})" for number, name in categories.items()) or "none"
            raise DatasetError(
                f"{str(file)!r}: annotation id={groups[picture, category][0].get('id')} is of category {category!r}, "
                f"which is not among its categories: {known}. Add it to them, or delete the annotation."
            )
        if picture not in pictures:
            raise DatasetError(
                f"{str(file)!r}: annotation id={groups[picture, category][0].get('id')} is of picture {picture!r}, "
                "which is not among its images. Add it to them, or delete the annotation."
            )
    return pictures, categories, groups


def _mask(file: Path, pictured: Pictured, annotations: list[Record]) -> NDArray[np.uint8]:
    """Uint8 ``(H, W)``: 1 on all things, 255 on crowds beside them."""
    mask = np.zeros(pictured.size, np.uint8)
    for annotation in sorted(annotations, key=lambda a: -int(bool(a.get("iscrowd", 0)))):
        where = f"{str(file)!r}: annotation id={annotation.get('id')} of {pictured.name!r}"
        segmentation = annotation.get("segmentation")
        if not segmentation:
            raise MaskError(f"{where} has no polygons and no run lengths; draw its mask, or delete it.")
        if isinstance(segmentation, list):
            segmentation = [polygon_points(polygon, where, pictured.size).ravel().tolist() for polygon in segmentation]
        try:
            marked = decode(segmentation, pictured.size)
        except DatasetError as error:
            raise MaskError(f"{where}: {error}") from error
        check_marks(marked, where)
        mask[marked] = UNKNOWN if annotation.get("iscrowd") else 1
    return mask
