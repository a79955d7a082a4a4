"""One map of several labels: which of them take part, and which gets a pixel where their masks meet.

The network compares the query with one label's supports at a time, so that a label that the picture does not show may
be as sure of what looks like it as the right one. Its score tells them apart. Each probability is therefore weighed by
how the label's score compares with the highest one, squared; the highest weighed probability gets the pixel, where it
exceeds the threshold. A label that keeps less than a fifth of its mask lost what it took for its object to others:
what is left are crumbs, and it is left out. Of one label all of this is its mask. Of a checkpoint that was not
calibrated for scores, all labels weigh the same.

Square and fifth were chosen on training sets: of single animals, of which six others are to leave nothing, and of
streets, faces, meals and scans that show several labels at once, which all are to stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.results.full_size import sigmoid, strips

_POWER = 2
_LEAST_LEFT = 0.2
_ROWS = 64


def weights_of(
    leads: NDArray[np.float32], scores: NDArray[np.float32], present: NDArray[np.bool_], threshold: float
) -> NDArray[np.float32]:
    """Float32 ``(L,)`` in [0, 1]: what each label's probability is weighed by; 0 for those that take no part.

    Of log-odds ``(L, h, w)`` at the network's grid, scores ``(L,)`` in [0, 1], and which labels are present.
    """
    highest = float(scores[present].max(initial=0))
    relative = scores / highest if highest > 0 else np.ones_like(scores)
    weights = np.where(present, relative**_POWER, 0).astype(np.float32)
    probabilities = sigmoid(leads.copy())
    weighed = probabilities * weights[:, None, None]
    won = (weighed == weighed.max(0)) & (weighed > threshold)
    stays = won.sum((1, 2)) >= _LEAST_LEFT * (probabilities > threshold).sum((1, 2))
    weights[~stays] = 0
    return weights


def contested(
    leads: NDArray[np.float32], weights: NDArray[np.float32], size: tuple[int, int], threshold: float
) -> NDArray[np.integer[Any]]:
    """Integers ``(H, W)`` at ``size`` (height, width): 0 for background, ``i + 1`` where the ``i``-th label won.

    Of log-odds ``(L, h, w)`` at the network's grid, and the weights that :func:`weights_of` gives.
    """
    winners = np.empty(size, np.min_scalar_type(len(leads)))
    for rows, strip in contested_strips(leads, weights, size, threshold):
        winners[rows] = strip
    return winners


def contested_strips(
    leads: NDArray[np.float32], weights: NDArray[np.float32], size: tuple[int, int], threshold: float
) -> Iterator[tuple[slice, NDArray[np.integer[Any]]]]:
    """As :func:`contested`, a few rows at a time."""
    takers = np.flatnonzero(weights)
    if not takers.size:
        tops = range(0, size[0], _ROWS)
        parts = (slice(top, min(top + _ROWS, size[0])) for top in tops)
        yield from ((p, np.zeros((p.stop - p.start, size[1]), np.min_scalar_type(len(leads)))) for p in parts)
    for parts in zip(*(strips(leads[i], size) for i in takers), strict=True):
        rows = parts[0][0]
        winners = np.zeros(parts[0][1].shape, np.min_scalar_type(len(leads)))
        best = np.full(winners.shape, threshold, np.float32)
        for i, (_, lead) in zip(takers, parts, strict=True):
            weighed = sigmoid(lead)
            weighed *= weights[i]
            wins = weighed > best
            np.copyto(best, weighed, where=wins)
            winners[wins] = i + 1
        yield rows, winners
