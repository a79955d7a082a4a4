"""Corrections as a person draws them: a few strokes where a mask is most wrong, by what is right."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.data.dataset import IGNORE
from iir_sdk.errors import MissingDependencyError

Mask = NDArray[np.bool_]

_SIDE = 96
"""Longest side at which strokes are planned; a hand is no finer."""

_BRUSH = 0.025
"""Radius of the largest brush, of the picture's longer side."""

_LEAST_SHARE, _LEAST_OF_OBJECT = 0.002, 0.03
"""Of the picture and of the object: smaller mistakes nobody corrects."""


class Strokes(NamedTuple):
    """What was drawn on a picture: two masks ``(H, W)``, bool, that do not overlap; either may be empty."""

    of_object: Mask
    of_background: Mask

    @property
    def known(self) -> Mask:
        """Where anything was drawn."""
        return self.of_object | self.of_background

    @property
    def marks(self) -> NDArray[np.uint8]:
        """``(H, W)``: 1 under strokes on the object, 0 under those on background, 255 elsewhere."""
        return np.where(self.of_object, np.uint8(1), np.where(self.of_background, np.uint8(0), np.uint8(IGNORE)))

    def then(self, later: Strokes) -> Strokes:
        """With further ones, which hold where both are."""
        return Strokes(
            (self.of_object & ~later.of_background) | later.of_object,
            (self.of_background & ~later.of_object) | later.of_background,
        )

    def held(self, mask: Mask) -> Mask:
        """A predicted mask ``(H, W)`` with the strokes as they were drawn."""
        return (mask | self.of_object) & ~self.of_background


def correction(mask: Mask, truth: NDArray[np.uint8], strokes: int = 2) -> Strokes:
    """What a person draws on a mask: at most so many strokes of each kind, one in each of the largest mistakes.

    A stroke follows the middle of the mistaken region, from one end to the other, by a brush of half its width
    at most.

    Args:
        mask: ``(H, W)``, predicted.
        truth: ``(H, W)`` uint8, 1 the object, 0 background, 255 counts nowhere.
        strokes: at most, on missed object and on false object each.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    least = max(_LEAST_SHARE * truth.size, _LEAST_OF_OBJECT * float((truth == 1).sum()))
    missed, false = (truth == 1) & ~mask, (truth == 0) & mask
    return Strokes(*(_strokes_in(region, strokes, least) for region in (missed, false)))


def stroke_on(region: Mask) -> Mask:
    """A single stroke along the largest part of a region ``(H, W)``, however small; empty of none."""
    return _strokes_in(region, 1, 1)


def _strokes_in(region: Mask, count: int, least: float) -> Mask:
    """A stroke in each of the ``count`` largest parts with at least ``least`` pixels."""
    ndimage = _ndimage()
    drawn = np.zeros_like(region)
    parts, found = ndimage.label(region)
    areas = np.bincount(parts.ravel(), minlength=found + 1)[1:]
    for i in np.argsort(-areas, kind="stable")[:count]:
        if areas[i] >= least:
            drawn |= _stroke(parts == i + 1)
    return drawn


def _stroke(part: Mask) -> Mask:
    """One stroke inside a connected part, planned on a smaller map and drawn at its size."""
    ndimage = _ndimage()
    scale = min(1, _SIDE / max(part.shape))
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    small = np.asarray(Image.fromarray(part.view(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 127
    if not small.any():
        return part
    depth = ndimage.distance_transform_edt(np.pad(small, 1))[1:-1, 1:-1]
    middle = depth >= 0.6 * depth.max()
    line = _longest_way(middle, np.unravel_index(int(depth.argmax()), depth.shape))
    radius = min(max(0.5, 0.5 * float(depth.max())), _BRUSH * max(small.shape))
    brushed = ndimage.distance_transform_edt(~line) <= radius
    full = np.asarray(Image.fromarray(brushed).resize(part.shape[::-1], Image.Resampling.NEAREST))
    inside: Mask = full & part
    return inside


def _longest_way(middle: Mask, start: Any) -> Mask:
    """The shortest way inside a region between two points that are as far apart as any: a line ``(h, w)``, bool."""
    first = _farthest(_ways(middle, start))
    ways = _ways(middle, first)
    row, column = _farthest(ways)
    line = np.zeros_like(middle)
    line[row, column] = True
    while ways[row, column]:
        rows, columns = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
        nearer = np.argwhere(ways[rows, columns] == ways[row, column] - 1)[0]
        row, column = rows.start + int(nearer[0]), columns.start + int(nearer[1])
        line[row, column] = True
    return line


def _ways(region: Mask, start: Any) -> NDArray[np.int32]:
    """Steps from a point to each other one inside a region, -1 where none leads; corners touch."""
    steps = np.full(np.add(region.shape, 2), -1, np.int32)
    inner, free = steps[1:-1, 1:-1], region.copy()
    inner[start], free[start], step = 0, False, 0
    while True:
        rows = steps == step
        rows = rows[:-2] | rows[1:-1] | rows[2:]
        front = (rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]) & free
        if not front.any():
            return inner
        step += 1
        inner[front], free[front] = step, False


def _farthest(ways: NDArray[np.int32]) -> tuple[int, int]:
    row, column = np.unravel_index(int(ways.argmax()), ways.shape)
    return int(row), int(column)


def iou(mask: Mask, truth: NDArray[np.uint8]) -> float:
    """Of a mask and its truth, where that counts; 1 where both are empty."""
    counted = truth != IGNORE
    union = ((mask | (truth == 1)) & counted).sum()
    return float((mask & (truth == 1)).sum() / union) if union else 1.0


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError as error:
        raise MissingDependencyError("strokes are drawn by scipy; run: pip install 'iir-sdk[train]'") from error
    return ndimage
