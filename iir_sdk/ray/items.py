"""Rows of a dataset as pictures: fetched from stores ahead of their batch, then decoded as files are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from iir_sdk.errors import ConfigError, IirError, ImageError
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.ray.sources import PICTURE_COLUMNS, Columns
from iir_sdk.ray.store import fetched, is_uri
from iir_sdk.segmenting.journal import Stamp
from iir_sdk.segmenting.queries import Query
from iir_sdk.segmenting.reading import Read, pixels_in, read_ahead

_FETCHERS = 8
_NO_STAMP = Stamp(0, 0)


@dataclass(frozen=True)
class Item:
    """A picture to segment: its id, and its file's path, URI or bytes, or its pixels ``(H, W, 3)``."""

    id: str
    source: Any


def items_of(batch: Mapping[str, Any], columns: Columns) -> list[Item]:
    """Rows of a batch; a ConfigError where it lacks a column."""
    picture = columns.picture or next((name for name in PICTURE_COLUMNS if name in batch), None)
    for name, argument in ((columns.id, "id_column"), (picture, "picture_column")):
        if name is None or name not in batch:
            wanted = repr(name) if name else f"any of {', '.join(PICTURE_COLUMNS)}"
            raise ConfigError(f"the dataset has columns {sorted(batch)}, and not {wanted}: name yours by {argument}=.")
    return [Item(str(i), source) for i, source in zip(batch[columns.id], batch[str(picture)], strict=True)]


def read_items(items: Sequence[Item], batch_size: int) -> Iterator[list[Read]]:
    """Items in order, up to ``batch_size`` at a time, fewer of large ones; the next ones are read meanwhile."""
    return read_ahead(_fetched(items, 2 * batch_size), batch_size, _read)


@dataclass(frozen=True)
class _Fetched:
    item: Item
    source: Any  # an error where it could not be fetched
    seconds: float


def _fetched(items: Sequence[Item], ahead: int) -> Iterator[tuple[_Fetched, int]]:
    """Items whose files have come, with their pixels; so many more are on their way."""
    waiting: deque[Future[tuple[_Fetched, int]]] = deque()
    with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="iir-fetch") as pool:
        for item in items:
            waiting.append(pool.submit(_fetch, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _fetch(item: Item) -> tuple[_Fetched, int]:
    start, source = perf_counter(), item.source
    try:
        if isinstance(source, str) and is_uri(source):
            source = fetched(source)
    except IirError as error:
        source = error
    pixels = source.shape[0] * source.shape[1] if isinstance(source, np.ndarray) and source.ndim > 1 else 0
    pixels = pixels_in(source) if isinstance(source, (str, bytes)) else pixels
    return _Fetched(item, source, perf_counter() - start), pixels


def _read(file: _Fetched, pixels: int) -> Read:
    start = perf_counter()
    outcome: Picture | IirError
    try:
        outcome = file.source if isinstance(file.source, IirError) else _loaded(file.source)
    except IirError as error:
        outcome = error
    return Read(Query(file.item.id, ""), outcome, _NO_STAMP, file.seconds + perf_counter() - start)


def _loaded(source: Any) -> Picture:
    if source is None:
        raise ImageError("the row has no picture: its column is empty.")
    return load_picture(source, what="query")
