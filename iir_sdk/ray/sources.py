"""Where pictures come from: files on disks and in object stores, Parquet, and any dataset of Ray's."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from iir_sdk.errors import ConfigError, PictureNotFoundError
from iir_sdk.ray.parts import KnownIds
from iir_sdk.ray.store import file_system_of, is_uri
from iir_sdk.segmenting.queries import SUFFIXES, find_places

Paths: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"

PICTURE_COLUMNS = ("bytes", "path", "image")
"""Columns that hold pictures where none is named, the first that is there."""

_MOST_BLOCKS = 20_000
_READING = 0.1
"""Of a core, for a task that reads Parquet: beside workers of :data:`BESIDE_READING` each."""
BESIDE_READING = 0.9


@dataclass(frozen=True)
class Columns:
    """Names of a dataset's columns: of the ids, and of the pictures, None for one of :data:`PICTURE_COLUMNS`."""

    id: str = "id"
    picture: str | None = None


@dataclass(frozen=True)
class Source:
    """Pictures as rows of one of Ray's datasets.

    Attributes:
        dataset: with the columns.
        columns: of ids and pictures.
        ids: of all pictures, where they are known before any is read; None of datasets.
        pending: how many of them are still to be done; None of datasets.
        cores: of a worker beside what else the dataset needs.
        spare: cores to leave to the dataset's own steps.
    """

    dataset: Any
    columns: Columns
    ids: list[str] | None
    pending: int | None
    cores: float = 1.0
    spare: int = 0


def is_dataset(given: object) -> bool:
    """Whether it is a ``ray.data.Dataset``."""
    return any(c.__name__ == "Dataset" and c.__module__.startswith("ray.data") for c in type(given).__mro__)


def source_of(
    given: Any, columns: Columns, known: KnownIds, *, part_size: int, recursive: bool, out: str, masks: Collection[str]
) -> Source:
    """Pictures of paths or of a dataset, without files that are ``known``.

    Raises:
        PictureNotFoundError: a path leads to no picture.
        ConfigError: a URI names no file system; Parquet and pictures are mixed.
    """
    if is_dataset(given):
        return Source(given, columns, None, None, spare=1)
    paths = [given] if isinstance(given, (str, os.PathLike)) else list(given)
    texts = [os.fspath(path) for path in paths]
    tables = [text for text in texts if text.endswith(".parquet")]
    if tables and len(tables) < len(texts):
        raise ConfigError(f"{tables[0]!r} is Parquet and the other paths are not: segment them by two calls.")
    if tables:
        return _of_parquet(tables, columns)
    ids = listed(texts, recursive=recursive, out=out, masks=masks)
    held = known.hold(ids)
    pending = [text for text, there in zip(ids, held, strict=True) if not there]
    return Source(_dataset_of(pending, part_size), Columns("id", "path"), ids, len(pending))


def _dataset_of(ids: Sequence[str], part_size: int) -> Any:
    """A block a part, or several of them where there would be very many."""
    import pyarrow as pa
    import ray.data

    parts = -(-len(ids) // part_size)
    step = part_size * max(1, -(-parts // _MOST_BLOCKS))
    chunks = [ids[i : i + step] for i in range(0, len(ids), step)] or [[]]
    return ray.data.from_blocks([pa.table({"id": pa.array(c, pa.string()), "path": c}) for c in chunks])


def _of_parquet(texts: Sequence[str], columns: Columns) -> Source:
    import ray.data

    files = [file for text in texts for file in (sorted(glob.glob(text)) if glob.has_magic(text) else [text])]  # noqa: PTH207
    for text, missing in ((text, not is_uri(text) and not os.path.lexists(text)) for text in files):
        if missing:
            raise PictureNotFoundError(f"query {text!r}: no file there, from {str(Path.cwd())!r}.")
    if not files:
        raise PictureNotFoundError(f"query {texts[0]!r}: no file fits this pattern, from {str(Path.cwd())!r}.")
    dataset = ray.data.read_parquet(files, num_cpus=_READING)
    if columns.picture is not None:
        dataset = dataset.select_columns([columns.id, columns.picture])
    return Source(dataset, columns, None, None, cores=BESIDE_READING)


def listed(texts: Sequence[str], *, recursive: bool, out: str, masks: Collection[str] = ()) -> list[str]:
    """Files that paths, folders, globs, lists and URIs lead to, each once: absolute paths, and URIs.

    Raises:
        PictureNotFoundError: one of them leads to no picture.
        ConfigError: a URI names no file system.
    """
    local = [text for text in texts if not is_uri(text)]
    aside = Path(os.devnull) if is_uri(out) else Path(out)
    files = list(find_places(local, recursive=recursive, out=aside, masks=masks)) if local else []
    for uri in (text for text in texts if is_uri(text)):
        files += _listed_uri(uri, recursive)
    return list(dict.fromkeys(files))


def _listed_uri(uri: str, recursive: bool) -> list[str]:
    from pyarrow import fs

    scheme = uri.partition("://")[0]
    fixed = uri
    while glob.has_magic(fixed):
        fixed = fixed.rpartition("/")[0]
    system, path = file_system_of(fixed)
    try:
        info = system.get_file_info(path)
        if info.is_file:
            return [uri]
        selector = fs.FileSelector(path, recursive=recursive or "**" in uri, allow_not_found=True)
        files = [info.path for info in system.get_file_info(selector) if info.is_file]
    except OSError as error:
        raise PictureNotFoundError(f"query {uri!r} cannot be listed: {error}.") from error
    prefix = fixed.rstrip("/")
    uris = [f"{prefix}/{file[len(path) :].lstrip('/')}" for file in sorted(files)]
    pictures = [u for u in uris if Path(u).suffix.lower() in SUFFIXES and (fixed == uri or fnmatch.fnmatch(u, uri))]
    if not pictures:
        raise PictureNotFoundError(
            f"query {uri!r}: no picture ({', '.join(sorted(SUFFIXES))}) there, by {scheme}'s listing; recursive=True "
            "takes those in folders within."
        )
    return pictures
