"""Regions of Label Studio's annotations as masks, and masks as regions of its predictions."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError, LabelStudioError
from iir_sdk.formats.brush import decode_brush, encode_brush
from iir_sdk.formats.polygons import rasterised
from iir_sdk.pictures.box import Box
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.web.label_studio.config import Control, LabelConfig

Size: TypeAlias = "tuple[int, int]"
_FEWEST_PIXELS = 16
"""Of a polygon: smaller ones are specks that somebody would have to delete one by one."""


@dataclass(frozen=True)
class Drawn:
    """What an annotation shows of a picture.

    Attributes:
        masks: bool ``(H, W)`` by label.
        boxes: of labels that have rectangles and no mask.
    """

    masks: Mapping[str, NDArray[np.bool_]]
    boxes: Mapping[str, Sequence[Box]]


def labels_in(results: Sequence[Mapping[str, Any]], config: LabelConfig) -> set[str]:
    """Which labels an annotation's results draw, as they say themselves: no picture is needed to tell."""
    kinds = {control.name: control.kind for control in config.controls}
    return {
        str(label)
        for result in results
        if (kind := kinds.get(str(result.get("from_name")))) is not None and isinstance(result.get("value"), Mapping)
        for label in result["value"].get(kind) or ()
    }


def drawn_in(results: Sequence[Mapping[str, Any]], config: LabelConfig, size: Size) -> Drawn:
    """What an annotation's results show, of a picture of ``size`` ``(height, width)``.

    Raises:
        LabelStudioError: they are of another size, turned, or not as documented.
    """
    kinds = {control.name: control.kind for control in config.controls}
    masks: dict[str, NDArray[np.bool_]] = {}
    boxes: dict[str, list[Box]] = defaultdict(list)
    for result in results:
        kind = result.get("type")
        if kinds.get(str(result.get("from_name"))) != kind or kind is None:
            continue
        try:
            _check_size(result, size)
            for label in result["value"][kind]:
                if kind == "rectanglelabels":
                    boxes[label].append(_box(result["value"], size))
                else:
                    masks[label] = masks.get(label, np.zeros(size, np.bool_)) | _mask(result["value"], kind, size)
        except (KeyError, TypeError, ValueError) as error:
            raise LabelStudioError(f"a region {kind!r} cannot be read: {error!r}.") from error
    return Drawn(masks, {label: each for label, each in boxes.items() if label not in masks})


def _check_size(result: Mapping[str, Any], size: Size) -> None:
    stated = (result["original_height"], result["original_width"])
    if stated != size or result.get("image_rotation"):
        raise DatasetError(
            f"drawn on a picture of {stated}, turned by {result.get('image_rotation', 0)}, not of {size}"
        )


def _mask(value: Mapping[str, Any], kind: str, size: Size) -> NDArray[np.bool_]:
    if kind == "brushlabels":
        return decode_brush(value["rle"], size)
    points = np.array(value["points"], np.float64).reshape(-1, 2) * (size[1] / 100, size[0] / 100)
    return rasterised([[points]], size)


def _box(value: Mapping[str, Any], size: Size) -> Box:
    if value.get("rotation"):
        raise DatasetError("a rectangle is turned")
    height, width = size
    x0, y0 = value["x"] * width / 100, value["y"] * height / 100
    x1, y1 = x0 + value["width"] * width / 100, y0 + value["height"] * height / 100
    # Of those drawn to the edge, percents are a little more than all.
    return max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)


def prediction_of(result: Segmentation, config: LabelConfig, version: str) -> dict[str, Any]:
    """A prediction, as Label Studio takes it: regions of what the picture shows, and how sure they are."""
    regions: list[dict[str, Any]] = []
    sure = []
    for label in result:
        control, one = config.drawing(label), result[label]
        if control is None or not one.mask.any():
            continue
        sure.append(one.confidence)
        values: list[dict[str, Any]] = [{"format": "rle", "rle": encode_brush(one.mask)}]
        if control.kind == "polygonlabels":
            values = [{"points": points, "closed": True} for points in _polygons(one)]
        regions += [_region(control, label, value, one) for value in values]
    # Without any region: how sure it is that there is none.
    score = float(np.mean(sure)) if sure else 1 - float(result.scores.max())
    return {"result": regions, "score": score, "model_version": version}


def _polygons(result: Segmentation) -> list[list[tuple[float, float]]]:
    """Outlines of a mask's parts in percent; what they enclose is theirs, since polygons there have no holes."""
    height, width = result.image.shape[:2]
    outlines = [part.exterior.coords[:-1] for part in result.polygons() if part.area >= _FEWEST_PIXELS]
    return [[(100 * x / width, 100 * y / height) for x, y in outline] for outline in outlines]


def _region(control: Control, label: str, value: dict[str, Any], result: Segmentation) -> dict[str, Any]:
    height, width = result.image.shape[:2]
    return {
        "id": secrets.token_urlsafe(8),
        "from_name": control.name,
        "to_name": control.picture,
        "type": control.kind,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, control.kind: [label]},
        "score": result.confidence,
    }
