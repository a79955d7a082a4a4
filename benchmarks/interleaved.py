"""Medians of rows that are run in turn, round after round, so that a machine that slows down slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Row = Callable[[], object]

_PAUSE = 0.05
"""Seconds between rows: the threads of the row before spin a while before they sleep."""


def medians(rows: Mapping[str, Row], repeats: int, warmup: int) -> dict[str, float]:
    """Milliseconds of each row, the median over interleaved repeats."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(warmup + repeats):
        for name, run in rows.items():
            time.sleep(_PAUSE)
            started = time.perf_counter()
            run()
            if turn >= warmup:
                times[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(of_row) for name, of_row in times.items()}
