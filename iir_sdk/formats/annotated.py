"""What readers of annotations share: masks with their pictures, pictures found, polygons and files that are none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError, DatasetNotFoundError, MaskError
from iir_sdk.files import is_file

PathLike = str | os.PathLike[str]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2")
_SHOWN = 5


class AnnotatedMask(NamedTuple):
    """Where a picture shows a label: all its things in one mask.

    Attributes:
        picture: its file.
        label: what is marked.
        mask: uint8 ``(H, W)``: 0 background, 1 the object, 255 unknown, as crowds are.
    """

    picture: Path
    label: str
    mask: NDArray[np.uint8]


def read_json(path: Path) -> Any:
    """A JSON file's content; a DatasetError where it cannot be read as one."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{str(path)!r} cannot be read as JSON ({error}); export it again.") from error


def picture_files(
    file: Path, names: Iterable[str], folders: Sequence[Path], images: PathLike | None
) -> dict[str, Path]:
    """Files of pictures by the names that an annotation file gives them; a DatasetNotFoundError lists what is missing.

    Looked for in ``images`` alone where it is given, with and without the folders in their names, else in ``folders``.
    """
    places = list(folders) if images is None else [Path(images)]
    paths: dict[str, Path] = {}
    missing = []
    for name in dict.fromkeys(names):
        parts = name.replace("\\", "/")
        choices = [place / end for place in places for end in dict.fromkeys((parts, parts.rpartition("/")[2]))]
        path = next((choice for choice in choices if is_file(choice)), None)
        if path is None:
            missing.append(name)
        else:
            paths[name] = path
    if missing:
        listed = ", ".join(map(repr, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        raise DatasetNotFoundError(
            f"{str(file)!r} names {len(missing)} pictures that are not in "
            f"{' or '.join(dict.fromkeys(repr(str(place)) for place in places))}: {listed}. "
            "Say where they lie: images=FOLDER (on the command line --images FOLDER)."
        )
    return paths


def polygon_points(values: object, where: str, size: tuple[int, int]) -> NDArray[np.float64]:
    """``(N, 2)`` of x and y from numbers one after another, or in pairs.

    A MaskError for what encloses nothing, or leads far out of a picture of ``size`` (height, width).
    """
    try:
        points = np.asarray(values, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise MaskError(f"{where}: a polygon is not pairs of numbers ({error}).") from error
    if len(points) < 3:
        raise MaskError(f"{where}: a polygon has {len(points)} points, and at least 3 enclose an area; draw it again.")
    low, high = points.min(0), points.max(0)
    # Written so that what is not a number fails, too.
    if not ((low > -np.array(size[::-1])) & (high < 2 * np.array(size[::-1]))).all():
        raise MaskError(
            f"{where}: a polygon goes from {low.tolist()} to {high.tolist()} (x, y), far out of its picture of "
            f"{size[0]} x {size[1]} (height x width). Was it drawn on a picture of another size?"
        )
    return points


def check_marks(mask: NDArray[np.generic], where: str) -> None:
    """Refuse a mask that marks no pixel by a MaskError."""
    if not mask.any():
        raise MaskError(
            f"{where} marks no pixel: it is empty, or lies outside of its picture; draw it again, or delete it."
        )
