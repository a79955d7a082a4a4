"""Pictures read while the network computes: a few threads decode the next batch."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Generic, TypeVar

from PIL import Image, UnidentifiedImageError

from iir_sdk.errors import IirError, MemoryShortageError
from iir_sdk.files import is_file
from iir_sdk.formats.raster import pixels_of
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.pictures.source import MAX_PIXELS
from iir_sdk.segmenting.journal import Stamp
from iir_sdk.segmenting.queries import Query

Given = TypeVar("Given")

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
    sized = ((query, pixels_in(query.path)) for query in queries)
    return read_ahead(sized, batch_size, _read)


def read_ahead(
    sized: Iterable[tuple[Given, int]], batch_size: int, read: Callable[[Given, int], Read]
) -> Iterator[list[Read]]:
    """As :func:`read_batches`, of whatever ``read`` reads, with its pixels."""
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="iir-read")
    ahead = _Ahead(pool, read)
    try:
        for batch in _batches(sized, batch_size):
            ahead.submit(batch)
            if len(ahead.waiting) > 1:
                yield from ahead.oldest()
            if ahead.put_off:
                yield from ahead.rest()
        yield from ahead.rest()
    finally:
        pool.shutdown(cancel_futures=True)


class _Ahead(Generic[Given]):
    """Batches that are being read; what memory does not suffice for is put off until no other waits beside it."""

    def __init__(self, pool: ThreadPoolExecutor, read: Callable[[Given, int], Read]) -> None:
        self._pool, self._read = pool, read
        self.waiting: deque[list[tuple[Given, int, Future[Read]]]] = deque()
        self.put_off: deque[tuple[Given, int]] = deque()

    def submit(self, batch: Iterable[tuple[Given, int]]) -> None:
        self.waiting.append([(given, pixels, self._pool.submit(self._read, given, pixels)) for given, pixels in batch])

    def oldest(self) -> Iterator[list[Read]]:
        """The batch that was submitted first, without what is put off; none where nothing is left of it."""
        batch: list[Read] = []
        for given, pixels, future in self.waiting.popleft():
            read = future.result()
            if isinstance(read.outcome, MemoryShortageError):
                self.put_off.append((given, pixels))
            else:
                batch.append(read)
        if batch:
            yield batch

    def rest(self) -> Iterator[list[Read]]:
        """All batches that wait, and then alone, one by one, what was put off."""
        while self.waiting:
            yield from self.oldest()
        while self.put_off:
            yield [self._read(*self.put_off.popleft())]


def _batches(sized: Iterable[tuple[Given, int]], batch_size: int) -> Iterator[list[tuple[Given, int]]]:
    batch: list[tuple[Given, int]] = []
    pixels = 0
    for given, more in sized:
        if batch and (len(batch) == batch_size or pixels + more > _BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append((given, more))
        pixels += more
    if batch:
        yield batch


def pixels_in(source: str | bytes) -> int:
    """As the first bytes of a file say, at a path or as they are; 0 of one whose error comes when it is read."""
    # A pipe would be waited for.
    if isinstance(source, str) and not is_file(source):
        return 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source if isinstance(source, str) else io.BytesIO(source)) as image:
                return image.width * image.height
    except Image.DecompressionBombError:
        return 1 + MAX_PIXELS
    except UnidentifiedImageError:
        if isinstance(source, bytes) or Path(source).suffix.lower() not in _OF_GDAL:
            return 0
        return pixels_of(source)
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
