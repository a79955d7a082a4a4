"""Masks from LabelMe's files, as labelme and X-AnyLabeling write them: polygons, rectangles, circles, masks."""

from __future__ import annotations

import base64
import binascii
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError, IirError, IirWarning, MaskError
from iir_sdk.formats.annotated import AnnotatedMask, PathLike, check_marks, picture_files, polygon_points
from iir_sdk.formats.polygons import rasterised
from iir_sdk.pictures.masks import mask_labels
from iir_sdk.pictures.orientation import frame_of

_OUTLINES = ("polygon", "rotation", "rectangle", "circle")
_WITHOUT_AREA = ("point", "points", "line", "linestrip")


def read_labelme(file: Path, document: Mapping[str, Any], images: PathLike | None) -> Iterator[AnnotatedMask]:
    """A mask for each label of one picture's file, in the order of its shapes; raises as the door does."""
    of_label: dict[str, list[Any]] = defaultdict(list)
    try:
        name = str(document["imagePath"])
        for i, shape in enumerate(document["shapes"]):
            of_label[str(shape["label"])].append((i, shape.get("shape_type") or "polygon", shape["points"], shape))
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{str(file)!r} is not in LabelMe's format: {error!r}.") from error
    if not of_label:
        return
    picture = picture_files(file, [name], [file.parent], images)[name]
    height, width = document.get("imageHeight"), document.get("imageWidth")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else frame_of(picture).size
    for label, shapes in of_label.items():
        mask = np.zeros(size, np.bool_)
        for i, kind, points, shape in shapes:
            where = f"{str(file)!r}: shape {i} ({label})"
            if kind in _WITHOUT_AREA:
                warnings.warn(
                    f"{where} is a {kind}, which marks no area; it is left out. Draw a polygon.",
                    IirWarning,
                    stacklevel=2,
                )
                continue
            marked = _marked(kind, points, shape, size, where)
            check_marks(marked, where)
            mask |= marked
        if mask.any():
            yield AnnotatedMask(picture, label, mask.astype(np.uint8))


def _marked(kind: str, points: Any, shape: Any, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """Bool ``(H, W)`` of one shape."""
    if kind == "mask":
        return _pasted(points, shape.get("mask"), size, where)
    if kind not in _OUTLINES:
        raise MaskError(
            f"{where} has shape_type {kind!r}; known are {', '.join((*_OUTLINES, 'mask'))}. Draw a polygon."
        )
    if kind in ("rectangle", "circle") and len(points) == 2:
        points = _outline(kind, points, where, size)
    return rasterised([[polygon_points(points, where, size)]], size)


def _outline(kind: str, points: Any, where: str, size: tuple[int, int]) -> Any:
    """Of two opposite corners, or of a centre and a point of its circle."""
    (x0, y0), (x1, y1) = polygon_points([*points, points[0]], where, size)[:2]
    if kind == "rectangle":
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    radius, angles = np.hypot(x1 - x0, y1 - y0), np.linspace(0, 2 * np.pi, 360, endpoint=False)
    return np.stack([x0 + radius * np.cos(angles), y0 + radius * np.sin(angles)], 1)


def _pasted(points: Any, content: Any, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """A mask that lies as a picture in its box, whose corners are the points."""
    try:
        patch = mask_labels(base64.b64decode(content)).labels == 1
        left, top = (round(float(side)) for side in points[0])
    except (IirError, TypeError, ValueError, IndexError, binascii.Error) as error:
        raise MaskError(f"{where}: its mask cannot be read ({error}); draw it again.") from error
    mask = np.zeros(size, np.bool_)
    target = mask[max(top, 0) : top + patch.shape[0], max(left, 0) : left + patch.shape[1]]
    patch = patch[max(-top, 0) :, max(-left, 0) :]
    target[:] = patch[: target.shape[0], : target.shape[1]]
    return mask
