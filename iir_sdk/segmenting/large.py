"""Segments a picture that does not fit into memory: read and written in windows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from iir_sdk.engines.tiled import Tile, Tiling
from iir_sdk.errors import IirWarning, ImageError, OutputError
from iir_sdk.files import check_writable_place
from iir_sdk.formats.large import LargeResult, Strips
from iir_sdk.formats.raster import Raster, opened_raster, write_numbers
from iir_sdk.formats.registry import WRITERS
from iir_sdk.pictures.source import MAX_PIXELS
from iir_sdk.results.competition import contested_strips, handicaps_of
from iir_sdk.results.full_size import sigmoid, strips
from iir_sdk.results.segmentation import Cut, Segmentation, segmentation
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.reading import LargeFile
from iir_sdk.segmenting.run import Cutting


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
        large = segmented_raster(raster, segmenter, labels, cut, tiling)
        areas = np.zeros(1 + len(large.labels), np.int64)
        write_numbers(place, _counted(large.strips(), areas), large.size, large.labels, large.place)
    return LargeReport(
        place,
        large.size,
        large.labels,
        tuple(map(float, large.small.scores)),
        tuple(map(float, large.small.confidences)),
        tuple(map(int, areas[1:])),
        perf_counter() - start,
    )


def segmented_raster(
    raster: Raster,
    segmenter: FewShotSegmenter,
    labels: Sequence[str] | None,
    cut: Cut,
    tiling: Tiling,
    *,
    progress: bool = False,
) -> LargeResult:
    """Segment an open file in windows; raises as :func:`segment_large` does.

    ``progress`` is a bar of the windows that were read, without an end, since answers say which are next.
    """
    with tqdm(unit=" tiles", leave=False, disable=not progress) as bar:
        names, segmented = segmenter.segment_windows(_Watched(raster, bar), labels=labels, cut=cut, tiling=tiling)
    small = segmentation(names, segmented, image=raster.overview(), cut=cut, timings={})
    return LargeResult(small, raster.size, raster.place, partial(_label_strips, small, raster.size))


def segmented_file(
    file: LargeFile,
    segmenter: FewShotSegmenter,
    labels: Sequence[str],
    cutting: Cutting,
    formats: Sequence[str],
    *,
    progress: bool = False,
) -> LargeResult:
    """Segment a picture of a folder's run in windows; raises as :func:`segment_large` does.

    An ImageError where a format or setting needs the whole picture.
    """
    _check_windowed(file, cutting, formats)
    if cutting.tiling.tile is None:
        warnings.warn(
            f"{file.path!r} is too large for memory, and without tiles it is looked at as a whole, at "
            f"{segmenter.preprocessing.size} pixels a side. Where its objects are small, say --tile auto "
            "(tile='auto').",
            IirWarning,
            stacklevel=2,
        )
    with opened_raster(file.path, what="query") as raster:
        return segmented_raster(raster, segmenter, labels, cutting.cut, cutting.tiling, progress=progress)


def _check_windowed(file: LargeFile, cutting: Cutting, formats: Sequence[str]) -> None:
    cleaning = cutting.cleaning
    settings = {
        "--sharpen": cutting.cut.sharpen,
        "--fill-holes": cleaning.fill_holes,
        "--min-area": cleaning.min_area,
        "--keep-largest": cleaning.keep_largest,
    }
    whole = [f"--format {name}" for name in formats if not WRITERS[name].takes_large]
    whole += [name for name, value in settings.items() if value]
    if whole:
        able = ",".join(name for name, writer in WRITERS.items() if writer.takes_large)
        raise ImageError(
            f"{file.path!r} has more than {MAX_PIXELS:,} pixels and is segmented in windows, but {', '.join(whole)} "
            f"needs it as a whole. Segment it without that, into another --out; --format may be any of {able}."
        )


@dataclass(frozen=True)
class _Watched:
    """A file whose windows are counted as they are read."""

    raster: Raster
    bar: Any

    @property
    def size(self) -> tuple[int, int]:
        return self.raster.size

    def window(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        self.bar.update()
        return self.raster.window(rows, columns)

    def overview(self) -> NDArray[np.uint8]:
        return self.raster.overview()


def _label_strips(small: Segmentation, size: tuple[int, int]) -> Strips:
    """:attr:`Segmentation.label_map` at another size, a few rows at a time; of one label its mask."""
    present, threshold = small.scores >= small.absent_below, small.threshold
    if len(small.labels) > 1:
        scores = small.scores if small.calibrated else None
        yield from contested_strips(small.leads, handicaps_of(small.leads, scores, present, threshold), size, threshold)
        return
    for rows, strip in strips(small.leads[0], size):
        yield rows, ((sigmoid(strip) > threshold) & present[0]).view(np.uint8)


def _counted(strips: Strips, areas: NDArray[np.int64]) -> Strips:
    """The same; ``areas (1 + L,)`` become the pixels of background and labels."""
    for rows, numbers in strips:
        areas += np.bincount(numbers.ravel(), minlength=len(areas))
        yield rows, numbers
