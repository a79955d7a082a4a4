"""One mask as several things: its connected parts, and those cut apart that touch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import needed_imports
from iir_sdk.formats.polygons import TOLERANCE, polygons_of

if TYPE_CHECKING:
    from shapely import Polygon
    from supervision import Detections
else:
    Polygon: TypeAlias = Any
    Detections: TypeAlias = Any

Box: TypeAlias = tuple[int, int, int, int]
_NECK = 0.75
"""Things are cut apart where what joins them is narrower than this share of the narrower one's width."""
_STEP = 1.1
_LEAST_RADIUS = 2.0
_TOUCHING = np.ones((3, 3))
_LARGE = 1024
"""Pixels a side, from which on parts are looked at in less detail."""
Piece: TypeAlias = tuple[int, int, NDArray[np.bool_]]
"""The row and the column where a piece of a crop begins, and its pixels from there on."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One thing of a mask.

    Attributes:
        label: of its mask.
        box: left, top, right, bottom, in pixels; the latter two are the first ones beyond it.
        crop: bool ``(bottom - top, right - left)``, its pixels in the box.
        size: ``(H, W)`` of the picture.
    """

    label: str
    box: Box
    crop: NDArray[np.bool_]
    size: tuple[int, int]

    def __repr__(self) -> str:
        return f"Instance({self.label!r}, box={self.box}, area={self.area})"

    @property
    def area(self) -> int:
        """In pixels."""
        return int(self.crop.sum())

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool ``(H, W)``; made anew at each reading."""
        mask = np.zeros(self.size, np.bool_)
        left, top, right, bottom = self.box
        mask[top:bottom, left:right] = self.crop
        return mask

    def polygon(self, tolerance: float = TOLERANCE) -> Polygon:
        """A shapely polygon, with its holes; see :func:`iir_sdk.formats.polygons.polygons_of`."""
        from shapely.affinity import translate

        (outline,) = polygons_of(self.crop, tolerance)
        return translate(outline, self.box[0], self.box[1])


def instances_of(mask: NDArray[np.bool_], label: str, *, split: bool = False, min_area: int = 1) -> list[Instance]:
    """The things of a mask ``(H, W)``, from the top down: pixels that touch, at corners as well, are one.

    Args:
        mask: of one label.
        label: what each thing is called.
        split: cut things apart that touch, as coins and cells do: where what joins two of them is narrower than three
            quarters of the narrower one.
        min_area: smaller ones are left out, in pixels.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    with needed_imports("instances are told apart by scipy; run: pip install 'iir-sdk[formats]'"):
        from scipy import ndimage
    numbers, _ = ndimage.label(mask, _TOUCHING)
    things = []
    for i, part in enumerate(ndimage.find_objects(numbers)):
        crop = numbers[part] == i + 1
        corner = (part[0].start, part[1].start)
        for rows, columns, piece in _pieces(crop) if split else [(0, 0, crop)]:
            top, left = corner[0] + rows, corner[1] + columns
            box = (left, top, left + piece.shape[1], top + piece.shape[0])
            things.append(Instance(label, box, piece, (mask.shape[0], mask.shape[1])))
    return [thing for thing in things if thing.area >= min_area]


def _pieces(crop: NDArray[np.bool_]) -> Iterator[Piece]:
    """Each piece of a connected part; of one that is large, cuts are placed by every so many of its pixels."""
    from scipy import ndimage

    step = -(-max(crop.shape) // _LARGE)
    small = np.ascontiguousarray(crop[::step, ::step])
    distance = ndimage.distance_transform_edt(np.pad(small, 1))[1:-1, 1:-1]
    numbers = np.zeros(small.shape, np.int32)
    for i, (top, left, region) in enumerate(_cut_at_necks(distance, small, 1.0)):
        numbers[top : top + region.shape[0], left : left + region.shape[1]][region] = i + 1
    if step > 1:
        numbers = numbers.repeat(step, 0).repeat(step, 1)[: crop.shape[0], : crop.shape[1]] * crop
        numbers = _nearest(numbers) * crop
    if numbers.max() < 2:
        yield 0, 0, crop
        return
    for i, part in enumerate(ndimage.find_objects(numbers)):
        parts, _ = ndimage.label(numbers[part] == i + 1, _TOUCHING)
        for j, (rows, columns) in enumerate(ndimage.find_objects(parts)):
            yield part[0].start + rows.start, part[1].start + columns.start, parts[rows, columns] == j + 1


def _cut_at_necks(distance: NDArray[np.float64], region: NDArray[np.bool_], level: float) -> Iterator[Piece]:
    """Pieces of one region: rims are taken off until cores fall apart, and each pixel goes to the core next to it.

    ``distance`` is that from the background, ``level`` the width of the rim that is off already.
    """
    from scipy import ndimage

    highest = float(distance[region].max(initial=0))
    while level < highest * _NECK:
        numbers, count = ndimage.label(region & (distance > level), _TOUCHING)
        peaks = np.zeros(count + 1)
        if count > 1:
            np.maximum.at(peaks, numbers.ravel(), distance.ravel())
        peaks[0] = 0
        cores = np.flatnonzero(peaks > max(level / _NECK, _LEAST_RADIUS)).tolist()
        if len(cores) > 1:
            owners = _owners(np.where(np.isin(numbers, cores), numbers, 0), region)
            places = ndimage.find_objects(owners)
            for core in cores:
                rows, columns = places[core - 1]
                part = owners[rows, columns] == core
                for top, left, piece in _cut_at_necks(distance[rows, columns], part, level):
                    yield rows.start + top, columns.start + left, piece
            return
        level *= _STEP
    yield 0, 0, region


def _owners(cores: NDArray[np.int32], region: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The number of the core that each pixel of a region belongs to, of the parts that touch the core."""
    from scipy import ndimage

    owners = _nearest(cores) * region
    for i, place in enumerate(ndimage.find_objects(owners)):
        if place is not None:
            parts, _ = ndimage.label(owners[place] == i + 1, _TOUCHING)
            touching = np.unique(parts[cores[place] == i + 1])
            # What lies nearest to a core across the background is not of it.
            owners[place][(parts > 0) & ~np.isin(parts, touching)] = 0
    return _nearest(owners) * region


def _nearest(numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each pixel's nearest number that is not 0."""
    from scipy import ndimage

    places = ndimage.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    nearest: NDArray[np.int32] = numbers[tuple(places)]
    return nearest


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Left, top, right, bottom of a mask ``(H, W)``, the latter two beyond it; zeros of an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (0, 0, 0, 0)
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def detections_of(things: list[Instance], scores: Mapping[str, float], size: tuple[int, int]) -> Detections:
    """Supervision's ``Detections``, one a thing: numbers of labels are their places in ``scores``.

    Raises:
        MissingDependencyError: supervision is not installed.
    """
    with needed_imports("to_supervision() needs supervision; run: pip install 'iir-sdk[supervision]'"):
        from supervision import Detections
    numbers = {label: i for i, label in enumerate(scores)}
    masks = [thing.mask for thing in things]
    return Detections(
        xyxy=np.array([thing.box for thing in things], np.float32).reshape(-1, 4),
        mask=np.stack(masks) if masks else np.zeros((0, *size), np.bool_),
        confidence=np.array([scores[thing.label] for thing in things], np.float32),
        class_id=np.array([numbers[thing.label] for thing in things], np.intp),
        data={"class_name": np.array([thing.label for thing in things], np.str_)},
    )
