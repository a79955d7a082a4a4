"""Carries a map from frame to frame: each place takes it from where the frame before looked alike, not far away."""

from __future__ import annotations

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

Floats = NDArray[np.float32]


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
