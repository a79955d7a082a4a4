"""Carries maps from frame to frame: each place takes them from places that look alike to the network.

Where no network says what places look like, from those of the frame before that have alike colours, not far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iir_sdk.pictures.preprocess import resized_map, resized_picture

# Chosen on twenty sequences, of other sets than those that are reported on (benchmarks/video.py).
_CELLS = 30
"""A side of what frames are compared by."""
_REACH = 3
"""Cells that things move by, at most, from frame to frame."""
_NEAR = 2.0
"""Cells within which a place is looked for first: of a Gaussian."""
_ALIKE = 0.03
"""Squared difference of colours that is still alike."""
_CONTRAST = 0.2
"""Standard deviation that every frame is brought to, so that light may change."""
_CUT = 0.06
"""Mean of what remains unlike beyond which a frame is of another scene: up to 0.02 from frame to frame of a moving
camera, 0.04 to 0.09 between pictures that have nothing in common."""

# Chosen on the same sequences.
_NEAREST, _SHARPNESS = 10, 0.05
"""How many of the places that look most alike count, by which softmax."""
_SPREAD = 0.25
"""Of a side: how far things move from the frame before, of a Gaussian. In a frame that the user has drawn, anywhere."""
_UNLIKE, _SAME = 0.2, 0.9
"""Likeness of a place at which nothing, and at which all, is carried to it."""
_SAME_SCENE = 0.31
"""Mean of places' likeness in a frame of the same scene: 0.35 to 0.8, and at most 0.29 where nothing is in common."""

Floats = NDArray[np.float32]


class Seen(NamedTuple):
    """A frame that was segmented.

    Attributes:
        maps: ``(L, h, w)``, its log-odds.
        looks: ``(C, n, n)``, see :meth:`iir_sdk.engines.base.Engine.segment_with_looks`.
        drawn: whether the user has drawn masks of it.
    """

    maps: Floats
    looks: Floats
    drawn: bool


def carried_by_looks(frames: Sequence[Seen], looks: Floats) -> Floats | None:
    """Maps ``(L, h, w)`` of frames as they are to be where ``looks (C, n, n)``; None where all are of other scenes.

    Each place takes a mean over those most like it, and less of it the less these are.
    """
    now, side = looks.reshape(len(looks), -1), looks.shape[1]
    near, values = [], []
    for frame in frames:
        alike = now.T @ frame.looks.reshape(len(looks), -1)
        if alike.max(1).mean() >= _SAME_SCENE:
            near.append(alike if frame.drawn else alike - _SHARPNESS * _distances(side) / (2 * _SPREAD**2))
            values.append(np.stack([resized_map(each, (side, side)).ravel() for each in frame.maps]))
    if not near:
        return None
    alike, maps = np.concatenate(near, 1), np.concatenate(values, 1)
    nearest = np.argpartition(-alike, _NEAREST, 1)[:, :_NEAREST]
    likeness = np.take_along_axis(alike, nearest, 1)
    best = likeness.max(1, keepdims=True)
    weights = np.exp((likeness - best) / _SHARPNESS)
    weights *= ((best - _UNLIKE) / (_SAME - _UNLIKE)).clip(0, 1) / weights.sum(1, keepdims=True)
    size = frames[0].maps.shape[1:]
    means = (maps[:, nearest] * weights).sum(2).reshape(-1, side, side)
    return np.stack([resized_map(each, (size[0], size[1])) for each in means])


def _distances(side: int) -> Floats:
    """``(n * n, n * n)``, squared, of places in a square of a side of 1."""
    rows, columns = (axis.ravel() / side for axis in np.mgrid[:side, :side])
    squared: Floats = ((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2).astype(np.float32)
    return squared


def colours_of(pixels: NDArray[np.uint8]) -> Floats:
    """A frame ``(H, W, 3)``, small, of zero mean and equal contrast in each colour."""
    small = resized_picture(pixels, _CELLS, "bilinear").astype(np.float32) / 255
    evened: Floats = (small - small.mean((0, 1))) / (small.std((0, 1)) + 0.02) * _CONTRAST
    return evened


def carried(maps: Floats, before: Floats, now: Floats) -> Floats:
    """Maps ``(L, h, w)`` of the frame before as they are to be in this one, zeros where that is of another scene.

    Frames as :func:`colours_of` gives them.
    """
    size = (maps.shape[1], maps.shape[2])
    small = np.stack([resized_map(each, (_CELLS, _CELLS)) for each in maps])
    edge = [(_REACH, _REACH), (_REACH, _REACH)]
    around, values = np.pad(before, [*edge, (0, 0)], mode="edge"), np.pad(small, [(0, 0), *edge], mode="edge")
    total, weights = np.zeros_like(small), np.full((_CELLS, _CELLS), 1e-6, np.float32)
    least = np.full((_CELLS, _CELLS), np.inf, np.float32)
    for y in range(2 * _REACH + 1):
        for x in range(2 * _REACH + 1):
            part = slice(y, y + _CELLS), slice(x, x + _CELLS)
            unlike = _smooth(((now - around[part]) ** 2).sum(2))
            least = np.minimum(least, unlike)
            far = ((y - _REACH) ** 2 + (x - _REACH) ** 2) / (2 * _NEAR**2)
            weight = np.exp(-unlike / _ALIKE - np.float32(far))
            total += weight * values[(slice(None), *part)]
            weights += weight
    if least.mean() > _CUT:
        return np.zeros_like(maps)
    return np.stack([resized_map(each, size) for each in total / weights])


def _smooth(values: Floats) -> Floats:
    """Means of three by three."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    mean: Floats = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    return mean
