"""The table of a run: a row a picture and label, what needs a look first."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from iir_sdk.files import write_atomically
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.segmenting.journal import Row

COLUMNS = ("file", "label", "score", "confidence", "area", "area_share", "box", "seconds", "error")


def rows_of(file: str, result: Segmentation, seconds: float) -> tuple[Row, ...]:
    """A row a label of one picture, of its part of the label map."""
    rows = []
    places = result.label_map
    for i, label in enumerate(result.labels):
        mask = places == i + 1
        area = int(mask.sum())
        box = None
        if area:
            (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0))
            box = (int(left), int(top), int(right) + 1, int(bottom) + 1)
        score, confidence = float(result.scores[i]), float(result.confidences[i])
        rows.append(Row(file, label, score, confidence, area, area / mask.size, box, seconds))
    return tuple(rows)


def in_order_of_need(rows: Iterable[Row]) -> list[Row]:
    """What needs a look first: errors, then the least certain."""
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
