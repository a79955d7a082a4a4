"""Batches that memory does not suffice for: halved, down to single pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter

from iir_sdk.errors import MemoryShortageError
from iir_sdk.segmenting.reading import Read
from iir_sdk.segmenting.run import Outcome

# What torch's allocators say, of the CPU and of a graphics card, whose own kind of error is not a MemoryError.
_SHORTAGES = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc")


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that there is no memory left."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(shortage in text for shortage in _SHORTAGES)
    )


def within_memory(segment: Callable[[list[Read]], list[Outcome]]) -> Callable[[list[Read]], list[Outcome]]:
    """The same, but where memory is short in halves of the batch; what is too much alone is a MemoryShortageError."""

    def segment_halves(batch: list[Read]) -> list[Outcome]:
        start = perf_counter()
        shortage = ""
        try:
            return segment(batch)
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            shortage = str(error) or type(error).__name__
        # Outside of the handler, whose error holds on to what the batch had taken.
        _give_back()
        if len(batch) > 1:
            middle = len(batch) // 2
            return segment_halves(batch[:middle]) + segment_halves(batch[middle:])
        told = MemoryShortageError(
            f"{batch[0].query.path!r} takes more memory than there is ({shortage:.200}); shrink it, give the process "
            "more, or have fewer processes share the machine."
        )
        return [(batch[0], told, perf_counter() - start)]

    return segment_halves


def _give_back() -> None:
    """Memory that torch keeps for later, on a graphics card."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
