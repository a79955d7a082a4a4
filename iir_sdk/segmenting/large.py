"""Segments a picture that does not fit into memory: read and written in windows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.tiled import Tile, Tiling
from iir_sdk.errors import OutputError
from iir_sdk.files import check_writable_place, write_atomically
from iir_sdk.formats.pictures import voc_palette
from iir_sdk.formats.raster import Raster, opened_raster
from iir_sdk.results.competition import contested_strips, weights_of
from iir_sdk.results.full_size import Segmented, sigmoid, strips
from iir_sdk.results.segmentation import Cut, scores_of
from iir_sdk.segmenter import FewShotSegmenter

_BLOCK = 256
"""Side of the written file's blocks."""


@dataclass(frozen=True)
class LargeReport:
    """What was made of a large picture.

    Attributes:
        out: the file of its masks.
        size: ``(height, width)`` of both in pixels.
        labels: number ``i + 1`` in the file is ``labels[i]``, 0 is background.
        scores: how probable it is that the picture shows each, in [0, 1].
        confidences: what share of each mask is right, as a rule, if so, in [0, 1].
        areas: pixels of each.
        seconds: that it took.
    """

    out: Path
    size: tuple[int, int]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    confidences: tuple[float, ...]
    areas: tuple[int, ...]
    seconds: float


def segment_large(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    segmenter: FewShotSegmenter,
    labels: Sequence[str] | None = None,
    threshold: float = 0.5,
    absent_below: float = 0.0,
    tile: Tile = "auto",
    overlap: float = 0.25,
) -> LargeReport:
    """Segment a picture of any size, such as a GeoTIFF, and write a TIFF of its labels' numbers.

    Both are read and written in windows, so that memory does not grow with the picture. A georeferenced picture's
    coordinate reference system and transform are kept.

    Args:
        source: whatever GDAL reads: GeoTIFF, TIFF, JPEG 2000, PNG, ...; of many bands the red, green and blue ones,
            else the first three.
        out: file to write, ``.tif``.
        segmenter: with supports. Its supports' pictures should have about the same pixel size as the source.
        labels: see :meth:`FewShotSegmenter.predict`; likewise ``threshold``, ``absent_below``, ``tile`` and
            ``overlap``. Masks that overlap compete, see :attr:`Segmentation.label_map`.

    Raises:
        PictureNotFoundError, ImageError: the source cannot be read.
        OutputError: ``out`` is no ``.tif``, or cannot be written.
        MissingDependencyError: rasterio is not installed.
        NoSupportError, LabelError, ConfigError, PrecisionError: as of :meth:`FewShotSegmenter.predict`.
    """
    start, place = perf_counter(), Path(out)
    if place.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"out={os.fspath(out)!r} must be a .tif.")
    check_writable_place(place)
    cut, tiling = Cut(threshold, absent_below), Tiling(tile, overlap)
    with opened_raster(source) as raster:
        names, segmented = segmenter.segment_windows(raster, labels=labels, cut=cut, tiling=tiling)
        presence, confidences = scores_of(segmented, cut)
        present = presence >= cut.absent_below
        areas = np.zeros(1 + len(names), np.int64)
        weights = weights_of(segmented.leads, _weighed(segmented, presence), present, cut.threshold)
        rows = _numbers(segmented.leads, weights, raster.size, cut.threshold)
        write_atomically(place, lambda beside: _write(beside, raster, rows, names, areas))
    return LargeReport(
        place,
        raster.size,
        names,
        tuple(map(float, presence)),
        tuple(map(float, confidences)),
        tuple(map(int, areas[1:])),
        perf_counter() - start,
    )


_Strips = Iterator[tuple[slice, NDArray[np.integer[Any]]]]


def _weighed(segmented: Segmented, presence: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores by which labels compete, as in :attr:`Segmentation.label_map`."""
    return presence if segmented.scores is not None else np.ones_like(presence)


def _numbers(
    leads: NDArray[np.float32], weights: NDArray[np.float32], size: tuple[int, int], threshold: float
) -> _Strips:
    """Labels' numbers, a few rows at a time; of one label its mask, whatever its score."""
    if len(leads) > 1:
        yield from contested_strips(leads, weights, size, threshold)
        return
    for rows, strip in strips(leads[0], size):
        yield rows, ((sigmoid(strip) > threshold) & bool(weights[0])).view(np.uint8)


def _write(place: Path, raster: Raster, rows: _Strips, names: tuple[str, ...], areas: NDArray[np.int64]) -> None:
    """A tiled TIFF at ``raster``'s place on earth; ``areas (1 + L,)`` become the pixels of background and labels."""
    import rasterio

    height, width = raster.size
    form = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": str(np.min_scalar_type(len(names))),
        "crs": raster.file.crs,
        "transform": raster.file.transform,
        "compress": "deflate",
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "BIGTIFF": "IF_SAFER",
    }
    with rasterio.open(place, "w", **form) as file:
        for strip, numbers in _of_blocks(rows, height):
            file.write(numbers, 1, window=((strip.start, strip.stop), (0, width)))
            areas += np.bincount(numbers.ravel(), minlength=len(areas))
        file.update_tags(1, **{f"label_{i + 1}": label for i, label in enumerate(names)})
        if len(names) < 256:
            file.write_colormap(1, dict(enumerate(map(tuple, voc_palette().tolist()))))


def _of_blocks(rows: _Strips, height: int) -> _Strips:
    """The same in whole rows of the file's blocks, so that each is compressed once."""
    waiting: list[NDArray[np.integer[Any]]] = []
    first = 0
    for strip, numbers in rows:
        waiting.append(numbers)
        count = strip.stop - first
        if count >= _BLOCK or strip.stop == height:
            joined = np.concatenate(waiting)
            whole = count if strip.stop == height else count - count % _BLOCK
            yield slice(first, first + whole), joined[:whole]
            waiting, first = [joined[whole:]], first + whole
