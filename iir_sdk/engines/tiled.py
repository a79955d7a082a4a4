"""A picture looked at more closely, in tiles: where the whole shows too little of what is in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.base import Engine, TaskGroup
from iir_sdk.errors import ConfigError
from iir_sdk.pictures.tiles import Place, Tiles, Windowed
from iir_sdk.results.blending import Blend, at_grid
from iir_sdk.results.full_size import Segmented, mean_probabilities
from iir_sdk.supports.cache import ReadySupports
from iir_sdk.supports.object_scale import tile_side

_BATCH = 8
_LEAST_SIDE = 32

# All of these are chosen on mosaics of training sets and on their pictures enlarged: docs/large.md.
_LARGE = 1.5
"""Times the network's side: a picture up to this has no more pixels than the network sees."""
_ZOOM = 1.75
"""Least factor that tiles are closer than the whole by."""
_TRACED = 4.0
"""Up to this factor, what is there leaves a trace in the coarser answer."""
_FIRST = 3.0
"""Where the factor is larger: how many times wider the tiles of a first look are."""
_TRACE = -5.0
"""Log-odds, at a cell, of what may be a trace."""
_PROBES = 4
"""Tiles that decide, those with the clearest traces, whether the others are worth their time."""
_GAIN, _LEAST_LIKELY, _LEAST_SURE, _SURE = 0.02, 0.7, 0.25, 0.85
"""By how much tiles' confidence must be higher than the whole's, where they are hardly closer; the least mean of their
scores, and of score times confidence; and how sure an answer needs no closer look."""
_RATHER_SURE, _LEAST_COMMON = 0.45, 0.5
"""Where the whole's score times confidence is above the one, tiles' masks and its own need this IoU."""
_HARDLY, _LENIENCE, _DOUBT = 3.0, 0.04, 0.1
"""Beyond the first, for each further time that tiles are closer than the whole: by how much less sure they need to be,
and by how much surer the whole must be to contradict them. Of things so small in it, even sure masks are guesses."""
_MOST_CELLS = 12_000_000
"""Of all labels' maps together: what they need does not grow with the picture."""
_MOST = 1000
"""Tiles of a picture in memory, for the labels of a scale, that ``auto`` looks at."""

Tile: TypeAlias = "int | Literal['auto'] | None"
"""Side of the tiles in pixels; ``auto`` for what the supports say; None for the whole picture alone."""


@dataclass(frozen=True)
class Scale:
    """Labels that are looked for in tiles of the same side.

    Attributes:
        side: of a tile in pixels.
        columns: the labels' places among all that were asked for.
        tasks: what these labels alone are compared by.
    """

    side: float
    columns: tuple[int, ...]
    tasks: Sequence[TaskGroup]


@dataclass(frozen=True)
class Tiling:
    """Whether and how closely pictures are looked at in tiles.

    Attributes:
        tile: see :data:`Tile`; at least 32.
        overlap: least share of a tile's side that it has in common with the next one, in [0, 0.5].
    """

    tile: Tile = None
    overlap: float = 0.25

    def __post_init__(self) -> None:
        """Check the ranges; a ConfigError names the value."""
        number = isinstance(self.tile, (int, np.integer)) and not isinstance(self.tile, bool)
        if not (self.tile is None or self.tile == "auto" or (number and int(self.tile) >= _LEAST_SIDE)):
            raise ConfigError(
                f"tile={self.tile!r} must be 'auto', None, or a tile's side in pixels, an integer of at least "
                f"{_LEAST_SIDE}."
            )
        share = isinstance(self.overlap, (int, float, np.integer, np.floating)) and not isinstance(self.overlap, bool)
        if not share or not 0 <= self.overlap <= 0.5:
            raise ConfigError(f"overlap={self.overlap!r} must be a number in [0, 0.5], the share of a tile's side.")


class CloserLook:
    """Looks closer at pictures, where that is asked for and can bring something.

    Args:
        engine: runs the network.
        tiling: how closely.
        ready: the supports.
        names: the labels asked for.
        all_tiles: ``auto`` looks at all tiles that may show the object, however many they are.
    """

    def __init__(
        self,
        engine: Engine,
        tiling: Tiling,
        ready: ReadySupports[list[TaskGroup]],
        names: tuple[str, ...],
        *,
        all_tiles: bool = False,
    ) -> None:
        self._engine, self._tiling, self._most = engine, tiling, None if all_tiles else _MOST
        self._ready, self._names = ready, names

    def segmented(self, picture: Windowed, whole: Segmented) -> Segmented:
        """The whole picture's answer, with that of tiles for the labels that gain by them.

        It is the same object where none does; else at the grid of the closest tiles.
        """
        automatic = self._tiling.tile == "auto"
        if automatic and max(picture.size) <= _LARGE * self._engine.identity.preprocessing.size:
            return whole
        least = whole.leads.shape[1] * math.sqrt(len(whole.leads) * math.prod(picture.size) / _MOST_CELLS)
        if not automatic and float(self._tiling.tile or 0) < least:
            raise ConfigError(
                f"tile={self._tiling.tile!r} is too small for {len(whole.leads)} labels in a picture of "
                f"{picture.size[0]} x {picture.size[1]}; pass tile={math.ceil(least)} or more, or fewer labels."
            )
        look = _Look(self._engine, picture, self._tiling.overlap, not automatic, self._most)
        return look.segmented(whole, [replace(scale, side=max(scale.side, least)) for scale in self._scales])

    @cached_property
    def _scales(self) -> list[Scale]:
        """The labels by the side of their tiles; those of about the same are looked for together."""
        if self._tiling.tile != "auto":
            together = {float(self._tiling.tile or 0): list(range(len(self._names)))}
        else:
            sides = np.array([tile_side(self._ready.bank.of_label(name)) for name in self._names])
            steps = np.round(np.log2(sides) * 2)
            members = [np.flatnonzero(steps == step) for step in np.unique(steps)]
            together = {float(np.median(sides[columns])): columns.tolist() for columns in members}
        return [
            Scale(side, tuple(columns), self._ready.prepared(tuple(self._names[c] for c in columns)))
            for side, columns in together.items()
        ]


class _Look:
    """At one picture.

    Args:
        engine: runs the network.
        picture: what is read in windows.
        overlap: as of :class:`Tiling`.
        everywhere: look at every tile, and take what it shows; else only at those that may show the object, and only
            where they turn out to be surer than the whole picture was.
        most: tiles that are looked at unless ``everywhere``, those with the clearest traces; None for all.
    """

    def __init__(self, engine: Engine, picture: Windowed, overlap: float, everywhere: bool, most: int | None) -> None:
        self._engine, self._picture, self._overlap = engine, picture, overlap
        self._everywhere, self._most = everywhere, most

    def segmented(self, whole: Segmented, scales: Sequence[Scale]) -> Segmented:
        """See :meth:`CloserLook.segmented`."""
        coarse = [_rows(whole, scale.columns) for scale in scales]
        answers = [self._answer(answer, scale) for answer, scale in zip(coarse, scales, strict=True)]
        if all(answer is before for answer, before in zip(answers, coarse, strict=True)):
            return whole
        if len(answers) == 1 and scales[0].columns == tuple(range(len(whole.leads))):
            return answers[0]
        grids = [answer.leads.shape[1:] for answer in answers]
        grid = (max(height for height, _ in grids), max(width for _, width in grids))
        joined = [at_grid(answer, grid) for answer in answers]
        order = np.argsort([column for scale in scales for column in scale.columns])
        scores = [answer.scores for answer in joined if answer.scores is not None]
        return Segmented(
            np.concatenate([answer.leads for answer in joined])[order],
            np.concatenate([answer.priors for answer in joined])[order],
            np.concatenate(scores)[order] if scores else None,
        )

    def _answer(self, whole: Segmented, scale: Scale) -> Segmented:
        """For a scale's labels: that of the closest look that pays."""
        near = self._tiles(whole, scale.side)
        if self._everywhere:
            return self._laid(whole, near, near.places, scale).segmented()
        if max(self._picture.size) < _ZOOM * scale.side or (_sureness(_scores(whole)) > _SURE).all():
            return whole
        zoom = max(self._picture.size) / scale.side
        closest = self._closest(whole, near, scale, zoom)
        return whole if closest is whole else _chosen(~_contradicts(whole, closest, zoom), closest, whole)

    def _closest(self, whole: Segmented, near: Tiles, scale: Scale, zoom: float) -> Segmented:
        """That of the tiles, ``zoom`` times closer than the whole, where it pays, as far as they can tell."""
        if zoom <= _TRACED:
            return self._surer(whole, whole, near, scale, _needed(zoom))
        far = self._tiles(whole, _FIRST * scale.side)
        places = far.places if zoom > _TRACED * _FIRST else sorted(self._traced(whole, far))
        blend = self._laid(whole, far, places, scale)
        first = blend.segmented()
        coarse = _better(first, whole, blend.typical_scores, _needed(zoom / _FIRST))
        return self._surer(coarse, first, near, scale, _needed(zoom))

    def _tiles(self, whole: Segmented, side: float) -> Tiles:
        return Tiles.of(self._picture.size, side, whole.leads.shape[1], self._overlap)

    def _surer(self, coarse: Segmented, traces: Segmented, tiles: Tiles, scale: Scale, needed: float) -> Segmented:
        """Tiles laid over the coarse answer for the labels that gain what is ``needed``; where none does, that itself.

        Only tiles are looked at in which ``traces``, of the same labels, show any.
        """
        places = self._traced(traces, tiles)
        probes = [answer for _, answer in self._looks(tiles, places[:_PROBES], scale)]
        if not probes or not _gains(_mean(probes), coarse, needed).any():
            return coarse
        # Row by row: a file's rows are read together.
        blend = self._laid(coarse, tiles, sorted(places), scale)
        return _better(blend.segmented(), coarse, blend.typical_scores, needed)

    def _laid(self, coarse: Segmented, tiles: Tiles, places: Sequence[Place], scale: Scale) -> Blend:
        blend = Blend(tiles, coarse)
        for place, answer in self._looks(tiles, places, scale):
            blend.add(place, answer)
        return blend

    def _looks(self, tiles: Tiles, places: Sequence[Place], scale: Scale) -> Iterator[tuple[Place, Segmented]]:
        """What the network says of each tile."""
        for first in range(0, len(places), _BATCH):
            batch = places[first : first + _BATCH]
            windows = [self._picture.window(*tiles.pixels_at(place)) for place in batch]
            yield from zip(batch, self._engine.segment(windows, scale.tasks)[0], strict=True)

    def _traced(self, traces: Segmented, tiles: Tiles) -> list[Place]:
        """Places of tiles with a trace of any label's object, the clearest first."""
        highest = traces.leads.max(0)
        factors = [have / cells for have, cells in zip(highest.shape, tiles.grid, strict=True)]

        def trace(place: Place) -> float:
            rows, columns = (
                slice(int(cells.start * factor), int(np.ceil(cells.stop * factor)))
                for cells, factor in zip(tiles.cells_at(place), factors, strict=True)
            )
            return float(highest[rows, columns].max())

        traced = [(trace(place), place) for place in tiles.places]
        traced = sorted((pair for pair in traced if pair[0] > _TRACE), key=lambda pair: -pair[0])
        return [place for _, place in traced[: self._most]]


def _scores(segmented: Segmented) -> NDArray[np.float32]:
    """Float32 ``(L, 2)`` in [0, 1]: presence and confidence; without a head for them, the mask's mean probability."""
    return segmented.scores if segmented.scores is not None else mean_probabilities(segmented.leads)


def _sureness(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(scores.prod(1))


def _mean(answers: Sequence[Segmented]) -> NDArray[np.float32]:
    """As :func:`_scores`, the mean of tiles' by how large each label's mask is in them; 0 where it has none."""
    cells = np.array([(a.leads > 0).sum((1, 2)) for a in answers], np.float32)[..., None]
    scores = np.array([_scores(a) for a in answers], np.float32)
    return np.asarray((cells * scores).sum(0) / np.maximum(1, cells.sum(0)), np.float32)


def _needed(zoom: float) -> float:
    """By how much the confidence of tiles that are so many times closer must be higher than the whole's."""
    return _GAIN - _LENIENCE * _far_beyond(zoom)


def _far_beyond(zoom: float) -> float:
    """How many times closer than hardly."""
    return max(0.0, zoom - _HARDLY)


def _gains(scores: NDArray[np.float32], coarse: Segmented, needed: float) -> NDArray[np.bool_]:
    """Bool ``(L,)``: of which labels there may be any, and more of the mask is right, as far as the network can tell.

    A score says whether there is any object, and more tiles find one more often, right or wrong; so a higher one alone
    is no gain.
    """
    likely = (scores[:, 0] > _LEAST_LIKELY) & (_sureness(scores) > _LEAST_SURE)
    return np.asarray(likely & (scores[:, 1] > _scores(coarse)[:, 1] + needed))


def _better(laid: Segmented, coarse: Segmented, typical: NDArray[np.float32], needed: float) -> Segmented:
    """Of each label the tiles' answer where it gains, else the coarse one; that itself where none gains.

    ``typical (L,)`` are the tiles' scores as :attr:`Blend.typical_scores`.
    """
    scores = _scores(laid)
    if laid.scores is not None:
        scores = np.stack([typical, scores[:, 1]], 1)
    return _chosen(_gains(scores, coarse, needed), laid, coarse)


def _contradicts(whole: Segmented, closer: Segmented, zoom: float) -> NDArray[np.bool_]:
    """Bool ``(L,)``: of which labels the whole was sure enough, and tiles ``zoom`` times closer show something else.

    So they do where the thing is too large for them: of its parts each may look like one.
    """
    contradicted = _sureness(_scores(whole)) > _RATHER_SURE + _DOUBT * _far_beyond(zoom)
    for i in np.flatnonzero(contradicted):
        (before,) = at_grid(_rows(whole, [int(i)]), closer.leads.shape[1:]).leads > 0
        after = closer.leads[i] > 0
        contradicted[i] = np.count_nonzero(before & after) < _LEAST_COMMON * np.count_nonzero(before | after)
    return np.asarray(contradicted)


def _chosen(gains: NDArray[np.bool_], laid: Segmented, coarse: Segmented) -> Segmented:
    """Of each label the tiles' answer where it gains, else the coarse one; that itself where none gains."""
    if gains.all() or not gains.any():
        return laid if gains.all() else coarse
    coarse = at_grid(coarse, (laid.leads.shape[1], laid.leads.shape[2]))
    maps, joined = gains[:, None, None], None
    if laid.scores is not None and coarse.scores is not None:
        joined = np.where(gains[:, None], laid.scores, coarse.scores)
    return Segmented(np.where(maps, laid.leads, coarse.leads), np.where(maps, laid.priors, coarse.priors), joined)


def _rows(segmented: Segmented, columns: Sequence[int]) -> Segmented:
    """Of some labels."""
    rows = list(columns)
    scores = None if segmented.scores is None else segmented.scores[rows]
    return Segmented(segmented.leads[rows], segmented.priors[rows], scores)
