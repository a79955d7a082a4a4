"""Masks in COCO's annotation format, which LVIS and PACO share: polygons and run lengths, by pycocotools."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.dataset import IGNORE, require
from iir_sdk.errors import DatasetError, MissingDependencyError

_KEPT = ("id", "category_id", "iscrowd", "bbox", "obj_ann_id", "segmentation")
"""What is used of an annotation; the files are gigabytes, and every worker holds a copy."""


@dataclass(frozen=True)
class Annotations:
    """One annotation file.

    Attributes:
        images: record of each picture, by its id.
        categories: name of each category, by its id, sorted by id.
        of_image: annotations by picture.
    """

    images: Mapping[int, Mapping[str, Any]]
    categories: Mapping[int, str]
    of_image: Mapping[int, Sequence[Mapping[str, Any]]]

    def category(self, name: str) -> int:
        """The id of a category."""
        return next(i for i, n in self.categories.items() if n == name)


@lru_cache(maxsize=4)
def read_annotations(path: Path, what: str) -> Annotations:
    """Read an annotation file; kept for further calls.

    Raises:
        DatasetNotFoundError: it is missing.
        DatasetError: it is not in COCO's format.
    """
    try:
        document = json.loads(require(path, what).read_bytes())
        images = {int(i["id"]): i for i in document["images"]}
        categories = {int(c["id"]): str(c["name"]) for c in sorted(document["categories"], key=lambda c: c["id"])}
        of_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in document["annotations"]:
            of_image[int(annotation["image_id"])].append({k: annotation[k] for k in _KEPT if k in annotation})
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is not in COCO's annotation format: {error!r}.") from error
    return Annotations(images, categories, of_image)


def class_mask(annotations: Annotations, image: int, category: int) -> NDArray[np.uint8]:
    """``(H, W)``: 1 on all instances of a category, 255 on crowds of it outside them, else 0."""
    record = annotations.images[image]
    size = (int(record["height"]), int(record["width"]))
    mask = np.zeros(size, np.uint8)
    own = [a for a in annotations.of_image.get(image, ()) if a["category_id"] == category]
    for annotation in sorted(own, key=lambda a: -int(a.get("iscrowd", 0))):
        mask[decode(annotation["segmentation"], size)] = IGNORE if annotation.get("iscrowd") else 1
    return mask


def decode(segmentation: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """``(H, W)`` bool of one annotation: polygons, or run lengths as counts or as a string.

    Raises:
        DatasetError: it is in none of these forms.
        MissingDependencyError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask as rle
    except ImportError as error:
        raise MissingDependencyError("COCO's masks need pycocotools; run: pip install 'iir-sdk[data]'") from error
    height, width = size
    try:
        if isinstance(segmentation, list):
            runs = rle.merge(rle.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
            runs = rle.frPyObjects(segmentation, height, width)
        elif isinstance(segmentation, dict):
            runs = segmentation
        else:
            raise TypeError(type(segmentation).__name__)
        decoded: NDArray[np.bool_] = rle.decode(runs).astype(np.bool_)
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise DatasetError(f"a mask is neither polygons nor run lengths: {error!r}.") from error
    return decoded
