"""Edges of masks drawn to those of the picture: a fast guided filter (He and Sun, arXiv 1505.00996).

Around each cell the probability is fitted as a linear function of the picture's colour there, and that function then
gives the probability of every pixel. It counts by the share of the probability's variance that it explains, so that the
answer stays as it is where nothing in the picture goes with it. Of thin and round things such fits see mostly what is
around them, and make them smaller; so each label's log-odds are shifted until its mask is as large as before. Only
numpy is used, for every backend.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.results.full_size import full_map, sigmoid

_FINER = 8
"""Most cells a side of what is returned, for one of the network's: as many as its input has pixels."""
_FITTED = 2
"""The same of the grid on which the function is fitted."""
_RADIUS = 3
"""Cells of that grid around each that a fit takes in."""
_EVENNESS = 1e-3
"""Variance of colour, of values in [0, 1], below which there is nothing to follow."""
_MOST_CELLS = 12_000_000
"""Of all labels' maps together: what they need does not grow with the picture."""
_LEAST = 1e-6
"""Variance of a probability below which it is the same everywhere."""
_SUREST = 1e-6
"""Least distance of a probability from 0 and 1: beyond, log-odds say nothing more."""


def sharpened(leads: NDArray[np.float32], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Log-odds ``(L, h, w)`` of a picture ``(H, W, 3)`` uint8 at a finer grid, with edges where the picture has them.

    The grid has up to eight times as many cells a side, but no more than the picture has pixels; leads of a picture
    without more pixels than cells come back as they are.
    """
    size = _finer_grid(leads.shape, (pixels.shape[0], pixels.shape[1]))
    if math.prod(size) <= math.prod(leads.shape[1:]):
        return leads
    picture = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=3.0)
    height, width = (min(full, _FITTED * cells) for full, cells in zip(size, leads.shape[1:], strict=True))
    fit = _Fit(_channels(picture.resize((width, height), Image.Resampling.BILINEAR)))
    colours = _channels(picture)
    return np.stack([_of_label(lead, fit, colours) for lead in leads])


def _of_label(lead: NDArray[np.float32], fit: _Fit, colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-odds ``(h', w')`` of one label at the size of ``colours (3, h', w')``, as many above 0 as without a fit."""
    plain = full_map(lead, (colours.shape[1], colours.shape[2]))
    inside = np.count_nonzero(plain > 0)
    if inside in (0, plain.size):
        return plain
    drawn = _log_odds(_applied(fit.coefficients(sigmoid(full_map(lead, fit.size))), colours))
    last_outside = plain.size - 1 - inside
    drawn -= np.partition(drawn, last_outside, axis=None)[last_outside]
    return drawn


def _finer_grid(shape: tuple[int, ...], picture: tuple[int, int]) -> tuple[int, int]:
    """Cells of what is returned, for leads of ``(L, h, w)``."""
    factor = min(_FINER, math.sqrt(_MOST_CELLS / math.prod(shape)))
    return min(picture[0], int(shape[1] * factor)), min(picture[1], int(shape[2] * factor))


def _channels(picture: Image.Image) -> NDArray[np.float32]:
    """``(3, h, w)`` in [0, 1]."""
    return np.moveaxis(np.asarray(picture, np.float32), 2, 0) / np.float32(255)


class _Fit:
    """Of probabilities to the colours ``(3, h, w)`` around each cell: least squares with a penalty."""

    def __init__(self, colours: NDArray[np.float32]) -> None:
        self._colours, self._means = colours, _boxed(colours)
        self._inverse = _inverse(*(self._covariance(i, j) for i in range(3) for j in range(i, 3)))

    @property
    def size(self) -> tuple[int, int]:
        """``(h, w)``."""
        return self._colours.shape[1], self._colours.shape[2]

    def coefficients(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(4, h, w)``: what red, green and blue count, and a constant; means of all fits that take a cell in."""
        mean, square = _boxed(np.stack([probability, probability**2]))
        shared = _boxed(self._colours * probability) - self._means * mean
        slopes = np.einsum("ijhw,jhw->ihw", self._inverse, shared)
        explained = ((slopes * shared).sum(0) / np.maximum(square - mean**2, _LEAST)).clip(0, 1)
        constant = mean - (slopes * self._means).sum(0)
        means = _boxed(explained * np.concatenate([slopes, constant[None], np.ones_like(mean)[None]]))
        means[3] += (1 - means[4]) * probability
        return np.asarray(means[:4])

    def _covariance(self, i: int, j: int) -> NDArray[np.float32]:
        product = _boxed((self._colours[i] * self._colours[j])[None])[0] - self._means[i] * self._means[j]
        return np.asarray(product + np.float32(_EVENNESS) if i == j else product)


def _inverse(
    rr: NDArray[np.float32],
    rg: NDArray[np.float32],
    rb: NDArray[np.float32],
    gg: NDArray[np.float32],
    gb: NDArray[np.float32],
    bb: NDArray[np.float32],
) -> NDArray[np.float32]:
    """``(3, 3, h, w)`` of symmetric matrices, by cofactors: many times faster than solving one by one."""
    first, second, third = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    middle, crossed, last = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    rows = np.stack([first, second, third, second, middle, crossed, third, crossed, last])
    rows /= rr * first + rg * second + rb * third
    return rows.reshape(3, 3, *rr.shape)


def _boxed(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means ``(C, h, w)`` over squares of ``2 * _RADIUS + 1`` cells, edges repeated."""
    side = 2 * _RADIUS + 1
    for axis in (1, 2):
        around = [(0, 0)] * 3
        around[axis] = (_RADIUS + 1, _RADIUS)
        # In float64, since differences of long sums are what counts.
        sums = np.pad(maps, around, mode="edge").cumsum(axis, dtype=np.float64)
        first, last = (np.take(sums, range(start, start + maps.shape[axis]), axis) for start in (0, side))
        maps = ((last - first) / side).astype(np.float32)
    return maps


def _applied(coefficients: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities ``(h', w')`` of colours ``(3, h', w')``, not yet held to [0, 1]."""
    size = colours.shape[1], colours.shape[2]
    probability = full_map(coefficients[3], size)
    for slope, channel in zip(coefficients[:3], colours, strict=True):
        probability += full_map(slope, size) * channel
    return probability


def _log_odds(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    probability = probability.clip(_SUREST, 1 - _SUREST)
    return np.asarray(np.log(probability / (1 - probability)))
