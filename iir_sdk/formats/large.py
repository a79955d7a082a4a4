"""What is made of a picture too large for memory, for writers: a small result, and a map that comes in strips."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from iir_sdk.results.segmentation import Segmentation

Strips: TypeAlias = "Iterable[tuple[slice, NDArray[np.integer[Any]]]]"
"""A map from the top down: some rows, and their numbers ``(rows, W)``."""


@dataclass(frozen=True)
class Place:
    """Where a picture lies: rasterio's coordinate reference system, and the transform from pixels to it."""

    crs: Any
    transform: Any


@dataclass(frozen=True)
class LargeResult:
    """Labels' masks in a picture that is read and written in windows.

    Attributes:
        small: the whole of it, smaller: to look at, and for its labels and scores.
        size: ``(height, width)`` of the picture itself, in pixels.
        place: where it lies.
        strips: makes its ``label_map`` of numbers of ``small.labels``, anew at each call.
    """

    small: Segmentation
    size: tuple[int, int]
    place: Place
    strips: Callable[[], Strips]

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of their numbers."""
        return self.small.labels


def renumbered(strips: Strips, numbers: NDArray[np.integer[Any]]) -> Strips:
    """The same with ``numbers[i]`` in place of ``i``."""
    return ((rows, numbers[strip]) for rows, strip in strips)
