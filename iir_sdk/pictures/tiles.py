"""Where tiles lie in a picture: they overlap, and their cells are those of one grid that covers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_NEARLY_ALL = 1.3
"""A tile is as long as the picture where that is at most this many times longer than it would be."""
_LONGEST = 2.0
"""Most times that a tile is longer than wide; the network sees it as a square."""

Place = tuple[int, int]
"""A tile's first row and first column on the grid."""


class Windowed(Protocol):
    """A picture that is read in windows."""

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""

    def window(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB of these rows and columns."""

    def overview(self) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB of all of it, at its own size or smaller."""


@dataclass(frozen=True)
class InMemory:
    """A picture ``(H, W, 3)`` that is there."""

    pixels: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return (self.pixels.shape[0], self.pixels.shape[1])

    def window(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """``(h, w, 3)`` RGB of these rows and columns."""
        return np.ascontiguousarray(self.pixels[rows, columns])

    def overview(self) -> NDArray[np.uint8]:
        """``(H, W, 3)``, all of it."""
        return self.pixels


@dataclass(frozen=True)
class Tiles:
    """Tiles of a picture.

    Attributes:
        size: ``(height, width)`` of the picture in pixels.
        sides: ``(height, width)`` of a tile in pixels, at most the picture's.
        cells: of a tile's side.
        overlap: least share of a tile's side that it has in common with the next one.
    """

    size: tuple[int, int]
    sides: tuple[float, float]
    cells: int
    overlap: float

    @classmethod
    def of(cls, size: tuple[int, int], side: float, cells: int, overlap: float) -> Tiles:
        """Tiles of about ``side`` pixels: no longer than the picture, and nearly square."""
        side = min(side, _LONGEST * min(size))
        height, width = (float(length) if length <= _NEARLY_ALL * side else float(side) for length in size)
        return cls(size, (height, width), cells, overlap)

    @property
    def grid(self) -> tuple[int, int]:
        """``(height, width)`` of the whole picture in cells."""
        height, width = (
            max(self.cells, round(length / side * self.cells))
            for length, side in zip(self.size, self.sides, strict=True)
        )
        return height, width

    @property
    def places(self) -> list[Place]:
        """Of all tiles, row by row: evenly spread, the first and the last at the picture's edges."""
        starts = []
        for cells in self.grid:
            step = self.cells - round(self.overlap * self.cells)
            count = 1 + max(0, -(-(cells - self.cells) // step))
            starts.append(np.linspace(0, cells - self.cells, count).round().astype(int).tolist())
        return [(row, column) for row in starts[0] for column in starts[1]]

    def cells_at(self, place: Place) -> tuple[slice, slice]:
        """A tile's rows and columns on the grid."""
        return slice(place[0], place[0] + self.cells), slice(place[1], place[1] + self.cells)

    def pixels_at(self, place: Place) -> tuple[slice, slice]:
        """A tile's rows and columns in the picture."""
        rows, columns = (
            slice(round(first * length / cells), round((first + self.cells) * length / cells))
            for first, length, cells in zip(place, self.size, self.grid, strict=True)
        )
        return rows, columns

    @property
    def weight(self) -> NDArray[np.float32]:
        """Float32 ``(cells, cells)`` in (0, 1]: what a cell says beside other tiles' cells at the same place.

        It falls to the tile's edges, where the network sees only one side of what is there.
        """
        from_edge = np.minimum(np.arange(self.cells), np.arange(self.cells)[::-1]) + 0.5
        ramp = np.minimum(1, from_edge / max(1.0, self.overlap * self.cells)).astype(np.float32)
        return np.outer(ramp, ramp).astype(np.float32)
