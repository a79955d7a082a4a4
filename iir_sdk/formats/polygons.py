"""Masks as polygons, and back: x to the right and y down, in pixels, whose centres lie at halves.

Outlines run through the middles of the edges between pixels, so that slants are straight lines. Up to a tolerance of
a sixth of a pixel they hold the centres of the mask's pixels and no others. Pixels that touch at corners are one thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import ConfigError, needed_imports

if TYPE_CHECKING:
    from shapely import Polygon
else:
    Polygon: TypeAlias = Any

TOLERANCE = 0.4
"""By how many pixels a simplified outline may leave its place: at 0.4 hardly a pixel changes sides, and at 0.5 many."""
_OF_SMALL = 0.02
"""The most of the root of a thing's area that its outline may move by: small things keep their shapes."""
_ROWS = 512
_UP, _DOWN, _LEFT, _RIGHT = (0, -0.5), (0, 0.5), (-0.5, 0), (0.5, 0)


def polygons_of(mask: NDArray[np.bool_], tolerance: float = TOLERANCE) -> list[Polygon]:
    """Of a mask ``(H, W)``: a valid shapely polygon, with its holes, for each of its connected parts.

    Raises:
        ConfigError: a tolerance that is no number of at least 0.
        MissingDependencyError: shapely is not installed.
    """
    with needed_imports("polygons are made by shapely; run: pip install 'iir-sdk[formats]'"):
        import shapely
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < np.inf:
        raise ConfigError(f"tolerance={tolerance!r} must be a number of pixels, of at least 0.")
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(_segments(mask))))
    # Outlines enclose holes as well as things: where an outline begins, the pixel of the thing is within, or beside.
    starts = shapely.get_coordinates(shapely.get_point(shapely.get_exterior_ring(faces), 0))
    exact = faces[shapely.contains_xy(faces, _thing_beside(mask, starts))]
    tolerances = np.minimum(tolerance, _OF_SMALL * np.sqrt(shapely.area(exact)))
    simple = shapely.simplify(exact, tolerances, preserve_topology=True)
    return list(np.where(shapely.is_valid(simple), simple, exact))


def _segments(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``(N, 2, 2)``: lines between the middles of edges, around every corner between pixels that differ."""
    padded = np.pad(mask, 1)
    # Few rows at a time: corners take ten times the memory of their pixels.
    tops = range(0, len(padded) - 1, _ROWS)
    return np.concatenate([_segments_of_rows(padded[top : top + _ROWS + 1]) + np.array((0, top)) for top in tops])


def _segments_of_rows(padded: NDArray[np.bool_]) -> NDArray[np.float64]:
    """As :func:`_segments`, of the corners between a few rows, of which the first two meet at y = 0."""
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    up, down, left, right = nw != ne, sw != se, nw != sw, ne != se
    crossed = up & down & left & right
    falling, rising = crossed & nw, crossed & ne
    pairs = (
        (up & right & ~rising, _UP, _RIGHT),
        (left & down & ~rising, _LEFT, _DOWN),
        (up & left & ~falling, _UP, _LEFT),
        (right & down & ~falling, _RIGHT, _DOWN),
        (up & down & ~left, _UP, _DOWN),
        (left & right & ~up, _LEFT, _RIGHT),
    )
    corners = [np.argwhere(present)[:, ::-1] for present, _, _ in pairs]
    ends = [np.stack([c + a, c + b], 1) for c, (_, a, b) in zip(corners, pairs, strict=True)]
    return np.concatenate(ends)


def _thing_beside(mask: NDArray[np.bool_], middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(N, 2)`` of x and y: the centres of the mask's pixels that have edges with these middles ``(N, 2)``."""
    padded = np.pad(mask, 1)
    # Of an edge that goes down, x is whole and the pixels lie left and right; of one across, above and below.
    step = np.where(middles % 1 == 0, 0.5, 0)
    after = middles + step
    inside = padded[tuple((np.floor(after) + 1).astype(np.intp).T[::-1])]
    return np.where(inside[:, None], after, middles - step)


def rings_of(polygon: Polygon) -> list[NDArray[np.float64]]:
    """``(N, 2)`` of x and y for the outline and for each hole; the last point is not the first one again."""
    return [np.asarray(ring.coords)[:-1] for ring in (polygon.exterior, *polygon.interiors)]


def without_holes(polygon: Polygon) -> list[Polygon]:
    """The same area as polygons without holes, cut through each hole's middle."""
    import shapely

    if not len(polygon.interiors):
        return [polygon]
    left, top, right, bottom = polygon.bounds
    hole_left, _, hole_right, _ = polygon.interiors[0].bounds
    middle = (hole_left + hole_right) / 2
    halves = (shapely.box(left, top, middle, bottom), shapely.box(middle, top, right, bottom))
    parts = [part for half in halves for part in shapely.get_parts(polygon.intersection(half))]
    return [whole for part in parts if part.geom_type == "Polygon" for whole in without_holes(part)]


def joined_ring(polygon: Polygon) -> NDArray[np.float64]:
    """``(N, 2)``: one ring that goes to each hole and back by a line of no width, for formats that know no holes."""
    ring, *holes = rings_of(polygon)
    # From left to right, so that no line leads through a hole that is not joined yet.
    for hole in sorted(holes, key=lambda h: float(h[:, 0].min())):
        start = int(hole[:, 0].argmin())
        turned = np.roll(hole, -start, axis=0)
        nearest = _nearest_left(ring, turned[0])
        ring = np.concatenate([ring[: nearest + 1], turned, turned[:1], ring[nearest:]])
    return ring


def _nearest_left(ring: NDArray[np.float64], point: NDArray[np.float64]) -> int:
    distance = np.hypot(*(ring - point).T)
    return int(np.where(ring[:, 0] <= point[0], distance, np.inf).argmin())


def rasterised(polygons: Iterable[Sequence[NDArray[np.floating[Any]]]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bool ``(H, W)`` of ``size``: the pixels whose centres lie in any of the polygons.

    Each is its rings, ``(N, 2)`` of x and y: what an even number of them encloses is a hole.
    """
    mask = np.zeros(size, np.bool_)
    for rings in polygons:
        _add(mask, rings)
    return mask


def _add(mask: NDArray[np.bool_], rings: Sequence[NDArray[np.floating[Any]]]) -> None:
    """Set the pixels of one polygon: each line switches what lies right of it, row by row."""
    height, width = mask.shape
    starts = np.concatenate([np.asarray(ring, np.float64) for ring in rings])
    ends = np.concatenate([np.roll(np.asarray(ring, np.float64), -1, axis=0) for ring in rings])
    # From the top down, so that a line that is gone along twice switches the same pixels twice.
    down = (starts[:, 1] <= ends[:, 1])[:, None]
    (x0, y0), (x1, y1) = np.where(down, starts, ends).T, np.where(down, ends, starts).T
    first = np.ceil(y0 - 0.5).clip(0, height).astype(np.intp)
    end = np.ceil(y1 - 0.5).clip(0, height).astype(np.intp)
    counts = end - first
    if not counts.any():
        return
    line = np.repeat(np.arange(len(counts)), counts)
    row = first[line] + np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
    x = x0[line] + (row + 0.5 - y0[line]) * ((x1 - x0)[line] / (y1 - y0)[line])
    column = np.ceil(x - 0.5).clip(0, width).astype(np.intp)
    top, left = row.min(), column.min()
    switches = np.zeros((row.max() - top + 1, column.max() - left + 1), np.uint8)
    np.bitwise_xor.at(switches, (row - top, column - left), 1)
    inside = np.bitwise_xor.accumulate(switches, axis=1)[:, :-1].astype(np.bool_)
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] |= inside
