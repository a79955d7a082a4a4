"""How large a label's object is in its supports' pictures: at which scale to look for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iir_sdk.pictures.preprocess import resized_map
from iir_sdk.supports.bank import Support

_CLOSEST, _CLOSE, _WIDEST = 1.5, 3.0, 6.0
"""A tile's side over its object's: at least, at least where that is few pixels, and at most. From mosaics of training
sets, see ``docs/large.md``."""
_FEW = 192
"""A tile of fewer pixels a side shows the network nothing that one of twice as many does not."""
_SIDE = 96


def tile_side(supports: Sequence[Support]) -> float:
    """Pixels a side of the tiles in which a label's object is found best, of a picture of the supports' pixel scale.

    As long as the support's picture, but one and a half to six times as long as its object, or three times where that
    is few pixels: the network sees a support cut to its object, and finds objects with more around them. Of several
    supports it is the median.
    """
    return float(np.median([_side(support) for support in supports]))


def _side(support: Support) -> float:
    extent = largest_extent(support.mask)
    least = max(_CLOSEST * extent, min(_CLOSE * extent, _FEW))
    return float(np.clip(max(support.image_size), least, _WIDEST * extent))


def largest_extent(mask: NDArray[np.bool_]) -> float:
    """The longer side of the box around the largest connected part of a mask ``(H, W)``, to about a percent of it."""
    scale = max(1.0, max(mask.shape) / _SIDE)
    height, width = (max(1, round(length / scale)) for length in mask.shape)
    shares = resized_map(mask.astype(np.float32), (height, width))
    parts = _parts(shares >= min(0.5, float(shares.max())))
    numbers, counts = np.unique(parts[parts > 0], return_counts=True)
    largest = parts == numbers[counts.argmax()]
    return float(scale * max(largest.any(axis).sum() for axis in (0, 1)))


def _parts(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """``(h, w)``: 0 outside a mask, inside it one number for what is connected by sides."""
    inside = np.pad(mask, 1)
    parts = np.where(inside, np.arange(1, inside.size + 1).reshape(inside.shape), 0)
    while True:
        spread = parts.copy()
        for axis in (0, 1):
            for step in (1, -1):
                np.maximum(spread, np.roll(spread, step, axis) * inside, out=spread)
        if np.array_equal(spread, parts):
            return parts[1:-1, 1:-1]
        parts = spread
