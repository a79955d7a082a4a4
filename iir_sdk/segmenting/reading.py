"""Pictures read while the network computes: a few threads decode the next batch."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from PIL import Image, UnidentifiedImageError

from iir_sdk.errors import IirError
from iir_sdk.files import is_file
from iir_sdk.formats.raster import pixels_of
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.pictures.source import MAX_PIXELS
from iir_sdk.segmenting.journal import Stamp
from iir_sdk.segmenting.queries import Query

_READERS = 2
_BATCH_PIXELS = 48_000_000
"""Of one batch, beyond which it is closed: with what is read ahead, under half a gigabyte."""
_OF_GDAL = (".tif", ".tiff", ".jp2")
"""Files that may be pictures to GDAL and none to PIL."""


@dataclass(frozen=True)
class LargeFile:
    """A picture too large for memory, to be read in windows."""

    path: str


@dataclass(frozen=True)
class Read:
    """A query that was read, or why it was not."""

    query: Query
    outcome: Picture | LargeFile | IirError
    stamp: Stamp  # of the file, before it was read
    seconds: float


def read_batches(queries: Sequence[Query], batch_size: int) -> Iterator[list[Read]]:
    """Queries in order, up to ``batch_size`` at a time, fewer of large ones; the next batch is read meanwhile."""
    batches = _batches(queries, batch_size)
    waiting: deque[list[Future[Read]]] = deque()
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="iir-read")
    try:
        for batch in batches:
            waiting.append([pool.submit(_read, query, pixels) for query, pixels in batch])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(queries: Sequence[Query], batch_size: int) -> Iterator[list[tuple[Query, int]]]:
    """Queries with their pixels."""
    batch: list[tuple[Query, int]] = []
    pixels = 0
    for query in queries:
        more = _pixels(query)
        if batch and (len(batch) == batch_size or pixels + more > _BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append((query, more))
        pixels += more
    if batch:
        yield batch


def _pixels(query: Query) -> int:
    """As a file's first bytes say; 0 of one that cannot be read, whose error comes when it is."""
    # A pipe would be waited for.
    if not is_file(query.path):
        return 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(query.path) as image:
                return image.width * image.height
    except Image.DecompressionBombError:
        return 1 + MAX_PIXELS
    except UnidentifiedImageError:
        return pixels_of(query.path) if Path(query.path).suffix.lower() in _OF_GDAL else 0
    except Exception:  # PIL's readers raise all kinds on damaged files
        return 0


def _read(query: Query, pixels: int) -> Read:
    start, stamp = perf_counter(), Stamp.of(query.key)
    outcome: Picture | LargeFile | IirError
    if pixels > MAX_PIXELS and find_spec("rasterio") is not None:
        return Read(query, LargeFile(query.path), stamp, perf_counter() - start)
    try:
        outcome = load_picture(query.path, what="query")
    except IirError as error:
        outcome = error
    return Read(query, outcome, stamp, perf_counter() - start)
