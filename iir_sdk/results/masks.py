"""The masks of a result, made when they are first asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iir_sdk.process import ProcessLock
from iir_sdk.results.full_size import mask_map


class KeptMasks:
    """Masks of ``L`` labels, each made once, a byte a pixel; a result shares them with its views of one label.

    Args:
        leads: float32 ``(L, h, w)``, at the network's grid.
        present: bool ``(L,)``; the others' masks are empty.
        size: ``(height, width)`` of the masks.
        threshold: of the probability.
    """

    def __init__(
        self, leads: NDArray[np.float32], present: NDArray[np.bool_], size: tuple[int, int], threshold: float
    ) -> None:
        self._leads, self._present, self._threshold = leads, present, threshold
        self._shape = (len(leads), *size)
        self._made: set[int] = set()
        self._masks: NDArray[np.bool_] | None = None
        self._lock = ProcessLock()

    def of(self, first: int, end: int) -> NDArray[np.bool_]:
        """``(end - first, H, W)`` of these labels, a view of what is kept."""
        with self._lock:
            if self._masks is None:
                # Memory that nobody wrote to yet costs nothing: a label that is never asked for has no mask.
                self._masks = np.zeros(self._shape, np.bool_)
            for i in range(first, end):
                if i not in self._made and self._present[i]:
                    mask_map(self._leads[i], self._shape[1:], self._threshold, self._masks[i])
                self._made.add(i)
            return self._masks[first:end]
