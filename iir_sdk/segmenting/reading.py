"""Pictures read while the network computes: a few threads decode the next batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from PIL import Image

from iir_sdk.errors import IirError
from iir_sdk.files import is_file
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.segmenting.journal import Stamp
from iir_sdk.segmenting.queries import Query

_READERS = 2
_BATCH_PIXELS = 48_000_000
"""Of one batch, beyond which it is closed: with what is read ahead, under half a gigabyte."""


@dataclass(frozen=True)
class Read:
    """A query that was read, or why it was not."""

    query: Query
    outcome: Picture | IirError
    stamp: Stamp  # of the file, before it was read
    seconds: float


def read_batches(queries: Sequence[Query], batch_size: int) -> Iterator[list[Read]]:
    """Queries in order, up to ``batch_size`` at a time, fewer of large ones; the next batch is read meanwhile."""
    batches = _batches(queries, batch_size)
    waiting: deque[list[Future[Read]]] = deque()
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="iir-read")
    try:
        for batch in batches:
            waiting.append([pool.submit(_read, query) for query in batch])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(queries: Sequence[Query], batch_size: int) -> Iterator[list[Query]]:
    batch: list[Query] = []
    pixels = 0
    for query in queries:
        more = _pixels(query)
        if batch and (len(batch) == batch_size or pixels + more > _BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(query)
        pixels += more
    if batch:
        yield batch


def _pixels(query: Query) -> int:
    """As a file's first bytes say; 0 of one that cannot be read, whose error comes when it is."""
    # A pipe would be waited for.
    if not is_file(query.path):
        return 0
    try:
        with Image.open(query.path) as image:
            return image.width * image.height
    except Exception:  # PIL's readers raise all kinds on damaged files
        return 0


def _read(query: Query) -> Read:
    start, stamp = perf_counter(), Stamp.of(query.key)
    outcome: Picture | IirError
    try:
        outcome = load_picture(query.path, what="query")
    except IirError as error:
        outcome = error
    return Read(query, outcome, stamp, perf_counter() - start)
