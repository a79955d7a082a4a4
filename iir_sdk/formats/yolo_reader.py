"""Masks from YOLO's segments: a text file a picture, a line a thing, names of classes in ``data.yaml`` or a list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError, DatasetNotFoundError, MaskError, needed_imports
from iir_sdk.files import is_file
from iir_sdk.formats.annotated import SUFFIXES, AnnotatedMask, PathLike, check_marks, picture_files, polygon_points
from iir_sdk.formats.polygons import rasterised
from iir_sdk.pictures.orientation import frame_of

_LISTS = ("classes.txt", "labels.txt", "obj.names")
_NO_LABELS = (*_LISTS, "train.txt", "val.txt", "test.txt")
_OUTSIDE = 0.01
"""How far beyond a picture's side, in shares of it, a point may lie."""


def read_yolo(path: Path, images: PathLike | None) -> Iterator[AnnotatedMask]:
    """A mask for each class in each picture: of ``data.yaml``, one label file, or a folder that holds either."""
    files = _label_files(path)
    names = class_names(path)
    lines = {file: _things(file, names) for file in files}
    marked = {file: things for file, things in lines.items() if things}
    pictures = {file: _picture_of(file, images) for file in marked}
    missing = [file for file, picture in pictures.items() if picture is None]
    if missing:
        stems = [file.with_suffix(".jpg").name for file in missing]
        picture_files(path, stems, _picture_folders(missing[0]), images)
    for file, picture in pictures.items():
        assert picture is not None
        height, width = frame_of(picture).size
        for label, polygons in marked[file].items():
            rings = [[polygon * (width, height)] for polygon in polygons]
            mask = rasterised(rings, (height, width))
            check_marks(mask, f"{str(file)!r}: {label!r}")
            yield AnnotatedMask(picture, label, mask.astype(np.uint8))


def class_names(path: Path) -> Mapping[int, str]:
    """Names by number, from the ``data.yaml`` or list of classes that lies at, in or above a path."""
    folders = [path, *path.parents[:3]]
    candidates = [path] if path.suffix in (".yaml", ".yml") else []
    candidates += [folder / name for folder in folders for name in ("data.yaml", "dataset.yaml", *_LISTS)]
    file = next((candidate for candidate in candidates if is_file(candidate)), None)
    if file is None:
        raise DatasetNotFoundError(
            f"{str(path)!r}: no names of classes: neither data.yaml nor classes.txt lies there or above it. "
            "Put a classes.txt there, a name a line, from number 0 on."
        )
    try:
        if file.suffix not in (".yaml", ".yml"):
            return dict(
                enumerate(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
            )
        names = _yaml(file)["names"]
        pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{str(file)!r} holds no names of classes ({error!r}).") from error


def _yaml(file: Path) -> Any:
    with needed_imports("data.yaml is read by pyyaml; run: pip install 'iir-sdk[formats]'"):
        import yaml
    try:
        return yaml.safe_load(file.read_bytes())
    except yaml.YAMLError as error:
        raise DatasetError(f"{str(file)!r} cannot be read as YAML ({error}).") from error


def _label_files(path: Path) -> list[Path]:
    """Sorted; those of a data set lie in ``labels``, where there is such a folder."""
    if path.suffix == ".txt":
        return [path]
    folder = path if path.is_dir() else path.parent
    below = folder / "labels" if (folder / "labels").is_dir() else folder
    files = sorted(f for f in below.rglob("*.txt") if f.name not in _NO_LABELS and not f.name.startswith("."))
    if not files:
        raise DatasetNotFoundError(f"{str(below)!r} holds no label files (.txt), nor annotations in JSON.")
    return files


def _things(file: Path, names: Mapping[int, str]) -> dict[str, list[NDArray[np.float64]]]:
    """Polygons ``(N, 2)`` in shares of the picture's sides, by label."""
    polygons: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{str(file)!r} cannot be read as text ({error}).") from error
    for i, line in enumerate(lines):
        words, where = line.split(), f"{str(file)!r}, line {i + 1}"
        if words:
            number, polygon = _thing(words, where)
            if number not in names:
                known = ", ".join(f"{n} ({name})" for n, name in names.items()) or "none"
                raise DatasetError(f"{where}: class {number} is not among the names: {known}. Add its name to them.")
            polygons[names[number]].append(polygon)
    return polygons


def _thing(words: Sequence[str], where: str) -> tuple[int, NDArray[np.float64]]:
    try:
        number, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise DatasetError(f"{where} is not a class and numbers ({error}).") from error
    if len(values) == 4:
        raise MaskError(f"{where} is a box, not a segment: it has 4 numbers. Export the set for segmentation.")
    if not all(-_OUTSIDE <= value <= 1 + _OUTSIDE for value in values):
        raise MaskError(f"{where} has numbers outside of [0, 1]; points are shares of the picture's sides.")
    return number, polygon_points(values, where, (1, 1))


def _picture_folders(file: Path) -> list[Path]:
    """Where the pictures of a label file may lie: in ``images`` for ``labels``, and beside it."""
    swapped = list(file.parts[:-1])
    if "labels" in swapped:
        swapped[len(swapped) - 1 - swapped[::-1].index("labels")] = "images"
    return list(dict.fromkeys((Path(*swapped), file.parent)))


def _picture_of(file: Path, images: PathLike | None) -> Path | None:
    folders = _picture_folders(file) if images is None else [Path(images)]
    choices = (folder / f"{file.stem}{case}" for folder in folders for s in SUFFIXES for case in (s, s.upper()))
    return next((choice for choice in choices if is_file(choice)), None)
