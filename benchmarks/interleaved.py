"""Medians of rows that are run in turn, round after round, so that a machine that slows down slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Row = Callable[[], object]

_PAUSE = 0.05
"""Seconds between rows: the threads of the row before spin a while before they sleep."""

_CALLS, _VISIT = 6, 500
"""Most calls of a row in one turn, and the milliseconds after which no further one is begun."""


def medians(rows: Mapping[str, Row], repeats: int, warmup: int) -> dict[str, float]:
    """Milliseconds of each row in steady state, the median over interleaved repeats."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(warmup + repeats):
        for name, run in rows.items():
            time.sleep(_PAUSE)
            visit = _visit(run)
            if turn >= warmup:
                times[name] += visit
    return {name: statistics.median(of_row) for name, of_row in times.items()}


def _visit(run: Row) -> list[float]:
    """Times of calls one after the other; the first finds other rows' data in the caches and counts only if alone."""
    times = [_timed(run)]
    while len(times) < _CALLS and sum(times) < _VISIT:
        times.append(_timed(run))
    return times[1:] or times


def _timed(run: Row) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1000
