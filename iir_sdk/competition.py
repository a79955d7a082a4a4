"""One map of several labels: where their masks meet, one of them gets the pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.full_size import sigmoid, strips


def contested(
    leads: NDArray[np.float32],
    scores: NDArray[np.float32],
    present: NDArray[np.bool_],
    size: tuple[int, int],
    threshold: float,
) -> NDArray[np.integer[Any]]:
    """Integers ``(H, W)`` at ``size``: 0 for background, ``i + 1`` where the ``i``-th label won.

    Args:
        leads: float32 ``(L, h, w)``, log-odds at the network's grid.
        scores: float32 ``(L,)`` in [0, 1].
        present: bool ``(L,)``; the others take no part.
        size: ``(height, width)``.
        threshold: of the masks.
    """
    winners = np.zeros(size, np.min_scalar_type(len(leads)))
    takers = np.flatnonzero(present)
    for parts in zip(*(strips(leads[i], size) for i in takers), strict=True):
        rows = parts[0][0]
        best = np.full(winners[rows].shape, -np.inf, np.float32)
        for i, (_, lead) in zip(takers, parts, strict=True):
            bid = lead.copy()
            wins = (bid > best) & (sigmoid(lead) > threshold)
            np.copyto(best, bid, where=wins)
            winners[rows][wins] = i + 1
    return winners
