"""Strokes as maps of pixels: what they say of a label in a picture, and what of it holds whatever is predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from iir_sdk.pictures.masks import UNKNOWN
from iir_sdk.web.project.state import Point, Stroke

MaskOf = Callable[[Stroke, "tuple[int, int]"], NDArray[np.uint8]]
"""From a stroke that is a box, a mask or a guess, and a size, to 0, 1 and 255 ``(H, W)``."""


def marks_of(strokes: Sequence[Stroke], size: tuple[int, int], mask_of: MaskOf) -> NDArray[np.uint8]:
    """What strokes of one label say at ``size`` (height, width): 0 background, 1 the object, 255 unknown.

    Later ones paint over earlier ones, but boxes in a row are one each of several things; erasing brings back what the
    last boxes, mask or guess said, or else unknown.
    """
    return marks_and_strokes(strokes, size, mask_of)[0]


def marks_and_strokes(
    strokes: Sequence[Stroke], size: tuple[int, int], mask_of: MaskOf
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """As :func:`marks_of`, and ``(H, W)`` the id of the stroke that said it last of each pixel."""
    marks, by = np.full(size, UNKNOWN, np.uint8), np.zeros(size, np.int64)
    below, below_by, boxed = marks.copy(), _everywhere(0, size), False
    for stroke in strokes:
        if stroke.kind in ("object", "background", "erase"):
            rows, columns, touched = painted_pixels(stroke, size)
            erased = stroke.kind == "erase"
            marks[rows, columns][touched] = below[rows, columns][touched] if erased else stroke.kind == "object"
            by[rows, columns][touched] = below_by[rows, columns][touched] if erased else stroke.id
            continue
        said = np.zeros(size, np.uint8) if stroke.kind == "not_here" else mask_of(stroke, size)
        if boxed and stroke.kind == "box":
            # Several things have a box each; what was painted since the first one stays, but in the next one's thing.
            painted = (by != below_by) & (said != 1)
            said = _either(below, said)
            below_by = np.where(said == below, below_by, stroke.id)
            marks, by = np.where(painted, marks, said), np.where(painted, by, below_by)
        else:
            below_by = _everywhere(stroke.id, size)
            marks, by = said.copy(), below_by.copy()
        below, boxed = said, stroke.kind == "box"
    return marks, by


def _everywhere(number: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """A map of one number, in no memory."""
    return np.broadcast_to(np.int64(number), size)


def _either(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of two maps of things ``(H, W)``: 1 where either has one, 0 where neither has, unknown elsewhere."""
    return np.where((one == 1) | (other == 1), np.uint8(1), np.maximum(one, other))


def painted_pixels(stroke: Stroke, size: tuple[int, int]) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Rows, columns and pixels in them that a round brush touched; at least one where it was inside."""
    height, width = size
    radius = stroke.radius * max(size)
    # Pixels' centres are at .5, and PIL's at whole numbers.
    points = [(x * width - 0.5, y * height - 0.5) for x, y in stroke.points]
    reach = math.ceil(radius) + 1
    left = max(0, math.floor(min(x for x, _ in points)) - reach)
    top = max(0, math.floor(min(y for _, y in points)) - reach)
    right = min(width, math.ceil(max(x for x, _ in points)) + reach + 1)
    bottom = min(height, math.ceil(max(y for _, y in points)) + reach + 1)
    if right <= left or bottom <= top:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.bool_)
    canvas = Image.new("1", (right - left, bottom - top))
    draw = ImageDraw.Draw(canvas)
    here = [(x - left, y - top) for x, y in points]
    if radius <= 0.5:
        draw.line([*here, here[-1]], fill=1)
        draw.point([(round(x), round(y)) for x, y in here], fill=1)
    else:
        for (x, y), after in zip(here, [*here[1:], here[-1]], strict=True):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
            # Not PIL's wide lines, which are up to a third too narrow or too wide where they slant.
            draw.polygon(_around((x, y), after, radius), fill=1)
    return slice(top, bottom), slice(left, right), np.array(canvas, np.bool_)


def _around(start: Point, end: Point, radius: float) -> list[Point]:
    """The corners of a line's rectangle, so wide to either side."""
    x, y = end[0] - start[0], end[1] - start[1]
    length = math.hypot(x, y) or 1.0
    x, y = x / length * radius, y / length * radius
    aside = (-y, x), (y, -x)
    corners = [*((start[0] + dx, start[1] + dy) for dx, dy in aside), *((end[0] - dx, end[1] - dy) for dx, dy in aside)]
    # PIL would cut the fractions off.
    return [(round(corner_x), round(corner_y)) for corner_x, corner_y in corners]


def held_to(places: NDArray[np.uint8], strokes: Mapping[int, Sequence[Stroke]], mask_of: MaskOf) -> NDArray[np.uint8]:
    """A map ``(H, W)`` of labels' ids, 0 for background, in which each label's strokes hold.

    What was painted as a label's object is of that label, what was painted as its background is not; of two labels
    that claim a pixel by strokes, the one whose stroke there is the last has it. Of a box ``mask_of`` says what is
    outside of it.
    """
    corrected, claimed = places.copy(), np.zeros(places.shape, np.int64)
    said = {
        label: marks_and_strokes(of_label, (places.shape[0], places.shape[1]), mask_of)
        for label, of_label in strokes.items()
    }
    for label, (marks, _) in said.items():
        corrected[(marks == 0) & (corrected == label)] = 0
    for label, (marks, by) in said.items():
        painted = (marks == 1) & (by > claimed)
        corrected[painted], claimed[painted] = label, by[painted]
    return corrected


def outside_box(stroke: Stroke, size: tuple[int, int]) -> NDArray[np.uint8]:
    """What a box says by itself: 0 outside of it, 255, unknown, inside."""
    marks = np.zeros(size, np.uint8)
    x0, y0, x1, y1 = box_pixels(stroke, size)
    marks[y0:y1, x0:x1] = UNKNOWN
    return marks


def box_pixels(stroke: Stroke, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in pixels, half-open, with at least one in it."""
    assert stroke.box is not None
    height, width = size
    x0, x1 = (round(stroke.box[i] * width) for i in (0, 2))
    y0, y1 = (round(stroke.box[i] * height) for i in (1, 3))
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return x0, y0, min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)


def by_label(strokes: Iterable[Stroke]) -> dict[int, tuple[Stroke, ...]]:
    """Strokes of one picture by their label's id, in order."""
    lists: dict[int, list[Stroke]] = {}
    for stroke in strokes:
        lists.setdefault(stroke.label, []).append(stroke)
    return {label: tuple(of_label) for label, of_label in lists.items()}
