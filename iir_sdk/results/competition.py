"""One map of several labels: which of them take part, and which gets a pixel where their masks meet.

The network compares the query with one label's supports at a time, so that a label that the picture does not show may
be as sure of what looks like it as the right one. Its score tells them apart: how far the log-odds of a label's score
stay behind those of the best label is its handicap, times 1.5. The highest log-odds with handicap get the pixel, where
those with half of it still exceed the threshold. A label that keeps less than a fifth of its mask lost what it took for
its object to others: what is left are crumbs, and it is left out. Of one label all of this is its mask. Of a checkpoint
that was not calibrated for scores, no label has a handicap.

Weight, half and fifth were chosen on training sets that the weights had not seen: of single animals, of which six
others are to leave nothing, and of streets, faces, meals and scans that show several labels at once, which all are to
stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.results.full_size import sigmoid, strips

_SCORE_WEIGHT = 1.5
_OF_BACKGROUND = 0.5
_LEAST_LEFT = 0.2
_ROWS = 64
_SUREST = 1 - 1e-4


def handicaps_of(
    leads: NDArray[np.float32], scores: NDArray[np.float32] | None, present: NDArray[np.bool_], threshold: float
) -> NDArray[np.float32]:
    """Float32 ``(L,)`` <= 0: by how much each label's log-odds count the less; -inf for those that take no part.

    Of log-odds ``(L, h, w)`` at the network's grid, scores ``(L,)`` in [0, 1], None where they were not fitted,
    and which labels are present.
    """
    known = np.ones(len(leads)) if scores is None else scores.astype(np.float64)
    shares = known.clip(1 - _SUREST, _SUREST)
    evidence = np.where(present, np.log(shares / (1 - shares)), -np.inf)
    highest = evidence.max(initial=-np.inf)
    handicaps = np.full(len(leads), -np.inf, np.float32)
    handicaps[present] = _SCORE_WEIGHT * (evidence[present] - highest)
    best = (leads + handicaps[:, None, None]).max(0, initial=-np.inf)
    for i in np.flatnonzero(present):
        won = (leads[i] + handicaps[i] == best) & _above_background(leads[i], handicaps[i], threshold)
        if won.sum() < _LEAST_LEFT * _above_background(leads[i], np.float32(0), threshold).sum():
            handicaps[i] = -np.inf
    return handicaps


def contested(
    leads: NDArray[np.float32], handicaps: NDArray[np.float32], size: tuple[int, int], threshold: float
) -> NDArray[np.integer[Any]]:
    """Integers ``(H, W)`` at ``size`` (height, width): 0 for background, ``i + 1`` where the ``i``-th label won.

    Of log-odds ``(L, h, w)`` at the network's grid, and the handicaps that :func:`handicaps_of` gives.
    """
    winners = np.empty(size, np.min_scalar_type(len(leads)))
    for rows, strip in contested_strips(leads, handicaps, size, threshold):
        winners[rows] = strip
    return winners


def contested_strips(
    leads: NDArray[np.float32], handicaps: NDArray[np.float32], size: tuple[int, int], threshold: float
) -> Iterator[tuple[slice, NDArray[np.integer[Any]]]]:
    """As :func:`contested`, a few rows at a time."""
    takers = np.flatnonzero(np.isfinite(handicaps))
    if not takers.size:
        tops = range(0, size[0], _ROWS)
        parts = (slice(top, min(top + _ROWS, size[0])) for top in tops)
        yield from ((p, np.zeros((p.stop - p.start, size[1]), np.min_scalar_type(len(leads)))) for p in parts)
    for parts in zip(*(strips(leads[i], size) for i in takers), strict=True):
        rows = parts[0][0]
        winners = np.zeros(parts[0][1].shape, np.min_scalar_type(len(leads)))
        best = np.full(winners.shape, -np.inf, np.float32)
        for i, (_, lead) in zip(takers, parts, strict=True):
            weighed = lead + handicaps[i]
            wins = (weighed > best) & _above_background(lead, handicaps[i], threshold)
            np.copyto(best, weighed, where=wins)
            winners[wins] = i + 1
        yield rows, winners


def _above_background(lead: NDArray[np.float32], handicap: np.float32, threshold: float) -> NDArray[np.bool_]:
    """Where a label with its handicap still exceeds the threshold; without one, its mask."""
    above: NDArray[np.bool_] = sigmoid(lead + np.float32(_OF_BACKGROUND) * handicap) > threshold
    return above
