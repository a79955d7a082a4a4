"""From the network's grid to a picture's own size: what every backend, scoring and calibration restore maps by.

Bilinear between the cells' centres, antialiased where a side shrinks; a map of ``(h, w)`` that is enlarged is made in
strips of a few rows, which stay in the cache and need no second map of the picture's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iir_sdk.pictures.preprocess import resized_map
from iir_sdk.process import ProcessLock
from iir_sdk.results.cleaning import Cleaning


@dataclass(frozen=True)
class Segmented:
    """What an engine makes of one picture, for ``L`` labels, at the network's own grid."""

    leads: NDArray[np.float32]  # ``(L, h, w)``, the foreground's logit minus the background's: its log-odds
    priors: NDArray[np.float32]  # ``(L, h', w')`` in [0, 1]
    # ``(L, 2)`` in [0, 1], how probable it is that the picture shows each label's object, and what share of its mask is
    # right if so; None of a network without a head for them.
    scores: NDArray[np.float32] | None = None

    def apart(self) -> list[Segmented]:
        """Each label's, as of one label."""
        rows = [slice(i, i + 1) for i in range(len(self.leads))]
        scores = [None if self.scores is None else self.scores[row] for row in rows]
        return [Segmented(self.leads[r], self.priors[r], s) for r, s in zip(rows, scores, strict=True)]


def full_map(grid: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Float32 ``(h, w)`` at ``size`` (height, width)."""
    enlarged = np.empty(size, np.float32)
    for rows, strip in strips(grid, size):
        enlarged[rows] = strip
    return enlarged


def probability_map(lead: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Of log-odds ``(h, w)``, the foreground's probability at ``size`` (height, width), float32 in [0, 1]."""
    probability = np.empty(size, np.float32)
    for rows, strip in strips(lead, size):
        probability[rows] = sigmoid(strip)
    return probability


def mask_map(
    lead: NDArray[np.float32], size: tuple[int, int], threshold: float, out: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """``probability_map(lead, size) > threshold``, bool, without a probability of the picture's size; into ``out``."""
    mask = np.empty(size, np.bool_) if out is None else out
    for rows, strip in strips(lead, size):
        np.greater(sigmoid(strip), threshold, out=mask[rows])
    return mask


class Masks:
    """Masks of ``L`` labels, each made once, a byte a pixel; a result shares them with its views of one label.

    Of log-odds ``(L, h, w)`` at the network's grid, cleaned; those of labels that are not ``present`` are empty.
    """

    def __init__(
        self,
        leads: NDArray[np.float32],
        present: NDArray[np.bool_],
        size: tuple[int, int],
        threshold: float,
        cleaning: Cleaning | None,
    ) -> None:
        self._leads, self._present, self._threshold, self._cleaning = leads, present, threshold, cleaning
        self._shape = (len(leads), *size)
        self._made: set[int] = set()
        self._masks: NDArray[np.bool_] | None = None
        self._lock = ProcessLock()

    def of(self, first: int, end: int) -> NDArray[np.bool_]:
        """``(end - first, H, W)`` of these labels, a view of what is held."""
        with self._lock:
            if self._masks is None:
                # Memory that nobody wrote to yet costs nothing: a label that is never asked for has no mask.
                self._masks = np.zeros(self._shape, np.bool_)
            for i in range(first, end):
                if i not in self._made and self._present[i]:
                    mask_map(self._leads[i], self._shape[1:], self._threshold, self._masks[i])
                    if self._cleaning is not None:
                        self._masks[i] = self._cleaning.of(self._masks[i])
                self._made.add(i)
            return self._masks[first:end]


def strips(grid: NDArray[np.float32], size: tuple[int, int]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The rows between two centres of cells at a time, and the map's values there: ``(rows, W)``, fresh memory."""
    shrunk = (min(size[0], grid.shape[0]), min(size[1], grid.shape[1]))
    if shrunk != grid.shape:
        grid = resized_map(grid, shrunk)
    left, share = _between(grid.shape[1], size[1])
    wide = grid[:, left] + share * (np.take(grid, left + 1, axis=1, mode="clip") - grid[:, left])
    above, share = _between(grid.shape[0], size[0])
    starts = np.flatnonzero(np.diff(above, prepend=-1))
    for start, end in zip(starts, [*starts[1:], size[0]], strict=True):
        upper, lower = wide[above[start]], wide[min(above[start] + 1, len(wide) - 1)]
        strip = np.multiply(share[start:end, None], lower - upper)
        strip += upper
        yield slice(start, end), strip


def _between(cells: int, pixels: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Of each pixel's centre: the cell before it, and how far it is on the way to the next one, in [0, 1]."""
    place = ((np.arange(pixels) + 0.5) * (cells / pixels) - 0.5).clip(0, cells - 1)
    before = place.astype(np.intp).clip(max=max(0, cells - 2))
    return before, (place - before).astype(np.float32)


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """In place."""
    np.negative(values, out=values)
    with np.errstate(over="ignore"):
        np.exp(values, out=values)
    np.add(values, 1, out=values)
    return np.reciprocal(values, out=values)


def mean_probabilities(leads: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.float32]:
    """Float32 ``(L, 2)`` in place of :attr:`Segmented.scores`: mean probability of cells in each mask, 0 for none.

    Of log-odds ``(L, h, w)``.
    """
    probabilities = sigmoid(leads.copy())
    cells = probabilities > threshold
    means = (probabilities * cells).sum((1, 2)) / np.maximum(1, cells.sum((1, 2)))
    return np.stack([means.astype(np.float32)] * 2, 1)
