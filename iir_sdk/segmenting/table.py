"""The table of a run: a row a picture and label, what needs a look first."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from iir_sdk.files import write_atomically
from iir_sdk.formats.large import LargeResult, Strips
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.segmenting.journal import Row

COLUMNS = ("file", "label", "score", "confidence", "area", "area_share", "box", "seconds", "error")


def rows_of(file: str, result: Segmentation | LargeResult, seconds: float) -> tuple[Row, ...]:
    """A row a label of one picture, of its part of the label map."""
    strips: Strips
    if isinstance(result, LargeResult):
        shown, size, strips = result.small, result.size, result.strips()
    else:
        shown, size = result, (result.image.shape[0], result.image.shape[1])
        strips = [(slice(0, size[0]), result.label_map)]
    extents = _extents(strips, size, len(shown))
    rows = []
    for label, extent, score, confidence in zip(shown.labels, extents, shown.scores, shown.confidences, strict=True):
        share = extent.area / math.prod(size)
        rows.append(Row(file, label, float(score), float(confidence), extent.area, share, extent.box, seconds))
    return tuple(rows)


class _Extent:
    """Where the pixels of a label are: those in each row, and which columns have any."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.rows, self.columns = np.zeros(size[0], np.int64), np.zeros(size[1], np.bool_)

    @property
    def area(self) -> int:
        return int(self.rows.sum())

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        if not self.rows.any():
            return None
        (top, bottom), (left, right) = (np.flatnonzero(axis)[[0, -1]] for axis in (self.rows, self.columns))
        return int(left), int(top), int(right) + 1, int(bottom) + 1


def _extents(strips: Strips, size: tuple[int, int], count: int) -> list[_Extent]:
    """Of so many labels."""
    extents = [_Extent(size) for _ in range(count)]
    for rows, numbers in strips:
        for number, extent in enumerate(extents, 1):
            mask = numbers == number
            extent.rows[rows] = mask.sum(1)
            extent.columns |= mask.any(0)
    return extents


def in_order_of_need(rows: Iterable[Row]) -> list[Row]:
    """What needs a look first: errors, then the least certain.

    No other figure that a prediction gives puts the worst masks first better by more than noise than
    :attr:`~iir_sdk.segmenting.journal.Row.certainty`: see ``benchmarks/evidence/annotation_curve``.
    """
    return sorted(rows, key=lambda row: (not row.error, row.certainty, row.file, row.label))


def write_table(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as CSV in UTF-8; an OutputError where it cannot be."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        if row.error:
            writer.writerow([row.file, *[""] * 7, row.error])
            continue
        box = " ".join(map(str, row.box or ()))
        numbers = (f"{row.score:.4f}", f"{row.confidence:.4f}", row.area, f"{row.area_share:.6f}")
        writer.writerow([row.file, row.label, *numbers, box, f"{row.seconds:.3f}", ""])
    # Names of files as the system has them, which need not be UTF-8.
    content = text.getvalue().encode("utf-8", "surrogateescape" if os.name == "posix" else "backslashreplace")
    return write_atomically(path, lambda beside: beside.write_bytes(content))
