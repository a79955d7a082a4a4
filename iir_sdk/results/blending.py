"""Tiles' answers as one: log-odds meet without seams, a label's score is the highest of any tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iir_sdk.pictures.tiles import Place, Tiles
from iir_sdk.results.full_size import Segmented, full_map

_BENEATH = np.float32(1e-6)
"""Weight of the whole picture's answer: it counts only where no tile was looked at."""


_UNLIKELY, _DOUBTED = 0.3, np.float32(-2)
"""A tile whose score is below the one claims nothing: its log-odds are at most the other. Chosen on training sets."""


class Blend:
    """What tiles say, laid over what the whole picture said: log-odds and priors are means by :attr:`Tiles.weight`.

    Of log-odds, means are as good as means of probabilities, and sums of both are as quick.
    """

    def __init__(self, tiles: Tiles, whole: Segmented) -> None:
        self._tiles, self._whole, self._weight = tiles, whole, tiles.weight
        self._leads = _enlarged(whole.leads, tiles.grid) * _BENEATH
        self._priors = _enlarged(whole.priors, tiles.grid) * _BENEATH
        self._weights = np.full(tiles.grid, _BENEATH, np.float32)
        self._presence = np.zeros(len(whole.leads), np.float32)
        self._confidence = np.zeros_like(self._presence)
        self._cells = np.zeros_like(self._presence)
        self._claimed, self._likely = np.zeros_like(self._presence), np.zeros_like(self._presence)

    def add(self, place: Place, tile: Segmented) -> None:
        """Lay a tile's answer to its place."""
        rows, columns = self._tiles.cells_at(place)
        side = (self._tiles.cells, self._tiles.cells)
        leads = tile.leads
        if tile.scores is not None:
            unlikely = (tile.scores[:, 0] < _UNLIKELY)[:, None, None]
            leads = np.where(unlikely, np.minimum(leads, _DOUBTED), leads)
        self._leads[:, rows, columns] += self._weight * leads
        self._priors[:, rows, columns] += self._weight * _enlarged(tile.priors, side)
        self._weights[rows, columns] += self._weight
        if tile.scores is not None:
            cells = (leads > 0).sum((1, 2)).astype(np.float32)
            np.maximum(self._presence, tile.scores[:, 0], out=self._presence)
            self._confidence += cells * tile.scores[:, 1]
            self._cells += cells
            claimed = (tile.leads > 0).sum((1, 2)).astype(np.float32)
            self._claimed += claimed
            self._likely += claimed * tile.scores[:, 0]

    @property
    def typical_scores(self) -> NDArray[np.float32]:
        """Float32 ``(L,)`` in [0, 1]: the mean of tiles' scores, by how much of a label each claims; 0 for none.

        Unlike the highest one it does not grow with the number of tiles.
        """
        return np.asarray(self._likely / np.maximum(1, self._claimed))

    def segmented(self) -> Segmented:
        """All as of one picture, at the tiles' grid; it can be asked for once.

        A label's confidence is the mean of its tiles', by how much of it each shows.
        """
        for maps in (self._leads, self._priors):
            maps /= self._weights
        scores = self._whole.scores
        if scores is not None:
            confidence = np.where(self._cells > 0, self._confidence / np.maximum(1, self._cells), scores[:, 1])
            scores = np.stack([np.maximum(scores[:, 0], self._presence), confidence], 1).astype(np.float32)
        return Segmented(self._leads, self._priors, scores)


def at_grid(segmented: Segmented, grid: tuple[int, int]) -> Segmented:
    """The same with maps of ``(h, w)`` cells."""
    return Segmented(_enlarged(segmented.leads, grid), _enlarged(segmented.priors, grid), segmented.scores)


def _enlarged(maps: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """``(L, h, w)`` at another size; the same where it is that."""
    if maps.shape[1:] == grid:
        return maps
    return np.stack([full_map(each, grid) for each in maps])
