"""Supports as people draw them: masks that are rough, a box, a few strokes or clicks, made from exact ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from iir_sdk.data.dataset import IGNORE

Labels = NDArray[np.uint8]
"""``(L, L)`` in {0, 1, 255}."""

_LARGEST_ERROR = 0.2
"""Of a rough outline, relative to the radius of a disc of the object's size."""
_STROKE = (0.012, 0.03)
"""Radius of a stroke, of the picture's side."""
_CLICK = (0.012, 0.025)


def hand_drawn(labels: Labels, rng: random.Random) -> Labels:
    """An exact mask as somebody might have drawn it: at random rough, a box, strokes or clicks.

    Strokes and clicks say what is object and what is background where they are, and nothing elsewhere.
    """
    way: Callable[[Labels, random.Random], Labels] = rng.choice((rough_outline, filled_box, strokes, clicks))
    drawn = way(labels, rng)
    # A thin object may have lost all of itself.
    return drawn if (drawn == 1).any() else labels


def rough_outline(labels: Labels, rng: random.Random) -> Labels:
    """Drawn too large, too small or along a wavering line; what counted nowhere stays so."""
    inside = labels == 1
    radius = math.sqrt(inside.sum() / math.pi)
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    shift = rng.uniform(-_LARGEST_ERROR, _LARGEST_ERROR) * radius
    noise = np.random.default_rng(rng.getrandbits(63)).normal(size=labels.shape)
    wave = ndimage.gaussian_filter(noise, max(2.0, radius / 3))
    wave *= rng.uniform(0, _LARGEST_ERROR) * radius / max(float(wave.std()), 1e-6)
    drawn: Labels = (distance + shift + wave > 0).astype(np.uint8)
    drawn[labels == IGNORE] = IGNORE
    return drawn


def filled_box(labels: Labels, rng: random.Random) -> Labels:
    """The box around the object, each side off by up to a twentieth of its length."""
    rows, columns = np.flatnonzero((labels == 1).any(1)), np.flatnonzero((labels == 1).any(0))
    drawn = np.zeros_like(labels)
    spans = []
    for cells, side in ((rows, labels.shape[0]), (columns, labels.shape[1])):
        slack = (cells[-1] - cells[0] + 1) / 20
        first = round(cells[0] + rng.uniform(-slack, slack))
        last = round(cells[-1] + rng.uniform(-slack, slack))
        spans.append(slice(max(0, first), min(side, last + 1)))
    drawn[tuple(spans)] = 1
    return drawn


def strokes(labels: Labels, rng: random.Random) -> Labels:
    """One to three strokes on the object and one to four beside it, each a line between points of its side."""
    return _marked(labels, rng, counts=((1, 3), (1, 4)), points=(2, 4), radius=_STROKE)


def clicks(labels: Labels, rng: random.Random) -> Labels:
    """One to four clicks on the object and up to five beside it, each a small disc."""
    return _marked(labels, rng, counts=((1, 4), (0, 5)), points=(1, 1), radius=_CLICK)


def _marked(
    labels: Labels,
    rng: random.Random,
    *,
    counts: tuple[tuple[int, int], tuple[int, int]],
    points: tuple[int, int],
    radius: tuple[float, float],
) -> Labels:
    """Marks on the object and beside it; none reaches over to the other side, and the rest counts nowhere."""
    drawn = np.full_like(labels, IGNORE)
    for side, count in ((1, counts[0]), (0, counts[1])):
        area = labels == side
        canvas = Image.new("1", labels.shape[::-1])
        draw = ImageDraw.Draw(canvas)
        for _ in range(rng.randint(*count) if area.any() else 0):
            marks, size = _points_along(area, rng.randint(*points), rng), rng.uniform(*radius) * len(labels)
            draw.line(marks, fill=1, width=max(1, round(2 * size)), joint="curve")
            for x, y in marks:
                draw.ellipse((x - size, y - size, x + size, y + size), fill=1)
        drawn[np.asarray(canvas) & area] = side
    return drawn


def _points_along(area: NDArray[np.bool_], count: int, rng: random.Random) -> list[tuple[int, int]]:
    """``count`` points ``(x, y)`` of an area, the next ones near the one before, as a hand moves."""
    rows, columns = np.nonzero(area)
    at = rng.randrange(len(rows))
    reach = max(4.0, math.sqrt(len(rows)))
    points = [(int(columns[at]), int(rows[at]))]
    for _ in range(count - 1):
        x, y = points[-1]
        near = np.flatnonzero(np.hypot(rows - y, columns - x) <= reach)
        at = int(near[rng.randrange(len(near))])
        points.append((int(columns[at]), int(rows[at])))
    return points
