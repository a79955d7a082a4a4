"""Batches that memory does not suffice for: halved, down to single pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter

from iir_sdk.errors import is_memory_shortage, memory_shortage
from iir_sdk.segmenting.reading import Read
from iir_sdk.segmenting.run import Outcome


def within_memory(segment: Callable[[list[Read]], list[Outcome]]) -> Callable[[list[Read]], list[Outcome]]:
    """The same, but where memory is short in halves of the batch; what is too much alone is a MemoryShortageError."""

    def segment_halves(batch: list[Read]) -> list[Outcome]:
        start = perf_counter()
        try:
            return segment(batch)
        except (MemoryError, RuntimeError) as error:
            if not is_memory_shortage(error):
                raise
            told = memory_shortage(repr(batch[0].query.path), error)
        # Outside of the handler, whose error holds on to what the batch had taken.
        _give_back()
        if len(batch) > 1:
            middle = len(batch) // 2
            return segment_halves(batch[:middle]) + segment_halves(batch[middle:])
        return [(batch[0], told, perf_counter() - start)]

    return segment_halves


def _give_back() -> None:
    """Memory that torch keeps for later, on a graphics card."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
