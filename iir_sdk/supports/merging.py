"""Many support tokens merged into few, so that cross attention costs the same however many shots there are."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.int64]

_ITERATIONS = 4


def merge_assignment(features: Floats, side: Floats, mass: Floats, budget: int) -> Numbers:
    """Which of at most ``budget`` merged tokens each token joins; foreground and background never mix.

    Each side gets half of the budget, and what the other leaves over.

    Args:
        features: ``(T, C)`` unit vectors.
        side: ``(T,)`` share of foreground in [0, 1].
        mass: ``(T,)`` > 0.
        budget: at least 2.

    Returns:
        ``(T,)`` int64, numbered from 0 without gaps.
    """
    foreground = side > 0.5
    held = int(foreground.sum())
    half = min(held, max(budget // 2, budget - (len(side) - held)))
    assigned = np.zeros(len(side), np.int64)
    for chosen, count, first in ((foreground, half, 0), (~foreground, budget - half, budget)):
        if chosen.any():
            assigned[chosen] = first + cluster(features[chosen], mass[chosen], count)
    return np.unique(assigned, return_inverse=True)[1].reshape(-1).astype(np.int64)


def cluster(features: Floats, mass: Floats, count: int) -> Numbers:
    """Spherical k-means, begun with tokens evenly spaced in their order, so that equal input gives equal output.

    Args:
        features: ``(T, C)`` unit vectors.
        mass: ``(T,)`` > 0.
        count: of clusters, at least 1.

    Returns:
        ``(T,)`` int64 below ``count``; some numbers may go unused.
    """
    if count >= len(features):
        return np.arange(len(features))
    centres = features[np.linspace(0, len(features) - 1, count).round().astype(np.int64)]
    assigned = (features @ centres.T).argmax(1)
    for _ in range(_ITERATIONS):
        sums = merge_sum(features * mass[:, None], assigned, count)
        # A cluster that lost all its tokens stays where it was.
        centres = np.where(sums.any(1, keepdims=True), unit(sums), centres)
        assigned = (features @ centres.T).argmax(1)
    found: Numbers = assigned
    return found


def merge_sum(values: Floats, assigned: Numbers, count: int | None = None) -> Floats:
    """Sums ``(..., T', C)`` of ``values (..., T, C)`` over each merged token."""
    count = int(assigned.max()) + 1 if count is None else count
    # A product with a 0-1 matrix: many times faster than numpy's own adding by index.
    member = np.zeros((count, len(assigned)), np.float32)
    member[assigned, np.arange(len(assigned))] = 1
    total: Floats = member @ values
    return total


def merge_mean(values: Floats, mass: Floats, assigned: Numbers) -> Floats:
    """Means ``(..., T', C)`` of ``values (..., T, C)`` over each merged token, weighted by ``mass (T,)``."""
    mean: Floats = merge_sum(values * mass[:, None], assigned) / merge_sum(mass[:, None], assigned)
    return mean


def unit(vectors: Floats) -> Floats:
    """Vectors of length 1 along the last axis; zero stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Floats = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return scaled
