"""The work of a call on its output folder: pictures read, segmented and written, each with its line in the journal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from iir_sdk.engines.tiled import Tiling
from iir_sdk.errors import IirError, MissingDependencyError, OutputError
from iir_sdk.files import made_folder, write_atomically
from iir_sdk.formats.large import LargeResult
from iir_sdk.formats.writer import Writer
from iir_sdk.pictures.load import Picture
from iir_sdk.results.cleaning import Cleaning
from iir_sdk.results.segmentation import Cut, Segmentation
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.journal import STATE, Journal, Record, Row
from iir_sdk.segmenting.queries import Query
from iir_sdk.segmenting.reading import LargeFile, Read, read_batches
from iir_sdk.segmenting.review import thumbnail, write_review
from iir_sdk.segmenting.supports import fingerprint
from iir_sdk.segmenting.table import in_order_of_need, rows_of, write_table

_LARGEST_PROBE = 64 << 20
"""Bytes that a disk is asked for, at most, to learn whether it is full."""


@dataclass(frozen=True)
class FolderReport:
    """What a run did.

    Attributes:
        out: the output folder.
        rows: a row a picture and label, also of earlier runs into this folder; what needs a look first.
        segmented: how many pictures were segmented now.
        present: how many had been done by an earlier run.
        errors: why pictures have no masks, by file.
    """

    out: Path
    rows: tuple[Row, ...] = field(repr=False)
    segmented: int
    present: int
    errors: dict[str, str]


@dataclass(frozen=True)
class Cutting:
    """How pictures become masks."""

    cut: Cut
    tiling: Tiling
    cleaning: Cleaning

    def arguments(self) -> dict[str, Any]:
        """Of ``predict_many``."""
        return {**asdict(self.cut), **asdict(self.tiling)}


def settings_of(
    segmenter: FewShotSegmenter, labels: Sequence[str], cutting: Cutting, formats: Sequence[str]
) -> dict[str, Any]:
    """All that outputs depend on, as plain values."""
    identity = segmenter.engine.identity
    return {
        "supports": fingerprint(segmenter),
        "weights": identity.name,
        "sha256": identity.sha256,
        "backend": identity.backend,
        "precision": identity.precision,
        "token_budget": segmenter.token_budget,
        "labels": list(labels),
        # Of numpy's numbers the plain ones, as they come back from the journal.
        **{name: _plain(value) for name, value in {**cutting.arguments(), **asdict(cutting.cleaning)}.items()},
        "formats": sorted(formats),
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


Outcome: TypeAlias = "tuple[Read, Segmentation | LargeResult | IirError, float]"


def batch_segmenter(
    segmenter: FewShotSegmenter,
    labels: Sequence[str],
    cutting: Cutting,
    batch_size: int,
    large: Callable[[LargeFile], LargeResult],
) -> Callable[[list[Read]], list[Outcome]]:
    """What segments a batch that was read: results or errors, and seconds; arguments are checked now.

    ``large`` segments a picture too large for memory.
    """
    settings = {"labels": labels, **cutting.arguments()}
    segmenter.predict_many([], batch_size=batch_size, **settings)

    def segment(batch: list[Read]) -> list[Outcome]:
        start = perf_counter()
        pictures: list[Any] = [read.outcome for read in batch if isinstance(read.outcome, Picture)]
        predictions = segmenter.predict_many(pictures, batch_size=max(1, len(pictures)), on_error="skip", **settings)
        results = iter([replace(result, cleaning=cutting.cleaning) for result in predictions])
        failed = {skip.position: skip.error for skip in predictions.skipped}
        segmented = iter([failed[i] if i in failed else next(results) for i in range(len(pictures))])
        seconds = (perf_counter() - start) / max(1, len(pictures))
        return [
            _of_large(read, read.outcome, large)
            if isinstance(read.outcome, LargeFile)
            else (read, read.outcome if isinstance(read.outcome, IirError) else next(segmented), read.seconds + seconds)
            for read in batch
        ]

    return segment


def _of_large(read: Read, file: LargeFile, segment: Callable[[LargeFile], LargeResult]) -> Outcome:
    start = perf_counter()
    try:
        return read, segment(file), perf_counter() - start
    except IirError as error:
        return read, error, perf_counter() - start


@dataclass(frozen=True)
class Run:
    """One call's work on an output folder that it holds."""

    journal: Journal
    labels: tuple[str, ...]
    writers: list[Writer]

    @property
    def out(self) -> Path:
        """The output folder."""
        return self.journal.out

    def go(
        self,
        queries: Sequence[Query],
        segment: Callable[[list[Read]], list[Outcome]],
        batch_size: int,
        *,
        page: Path | None,
        progress: bool,
    ) -> FolderReport:
        """Do what is not done, and write what belongs to all pictures, also where the work is interrupted."""
        records = self.journal.records
        keys = {query.key for query in queries}
        for key in [key for key, record in records.items() if record.failed and key not in keys]:
            # Without masks, and nobody asks for it any more.
            del records[key]
        pending = [q for q in queries if q.key not in records or not records[q.key].stands(self.out)]
        present = len(queries) - len(pending)
        bar = tqdm(total=len(queries), initial=present, unit=" pictures", disable=not progress, smoothing=0.1)
        try:
            with bar, ThreadPoolExecutor(1, thread_name_prefix="iir-write") as writing:
                last: Future[None] | None = None
                for batch in read_batches(pending, batch_size):
                    outcomes = segment(batch)
                    if last is not None:
                        last.result()
                    last = writing.submit(self._write_batch, outcomes, bar)
                if last is not None:
                    last.result()
        except KeyboardInterrupt:
            self._finish(page)
            raise
        except OutputError as error:
            done = sum(not record.failed for record in records.values())
            raise OutputError(
                f"{error} {done} pictures are done and stay; make room, and the same call goes on behind them."
            ) from error
        rows = self._finish(page)
        errors = {row.file: row.error for row in rows if row.error}
        return FolderReport(self.out, tuple(rows), len(pending) - len(errors), present, errors)

    def _write_batch(self, outcomes: list[Outcome], bar: Any) -> None:
        for read, outcome, seconds in outcomes:
            self._write(read, outcome, seconds)
            bar.update()

    def _write(self, read: Read, outcome: Segmentation | LargeResult | IirError, seconds: float) -> None:
        """Everything of one picture, the journal's line last."""
        start, query = perf_counter(), read.query
        files = self._files(query.name)
        try:
            if isinstance(outcome, IirError):
                raise outcome
            self._write_files(query, outcome)
            rows = rows_of(query.path, outcome, seconds + perf_counter() - start)
        except MissingDependencyError:
            raise
        except IirError as error:
            if isinstance(error, OutputError) and not isinstance(outcome, IirError):
                size = outcome.size if isinstance(outcome, LargeResult) else outcome.image.shape
                self._check_room(math.prod(size))
            # What an earlier run wrote is not this picture's any more.
            for file in files:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            files, rows = [], (Row(query.path, error=str(error)),)
        relative = tuple(file.relative_to(self.out).as_posix() for file in files)
        self.journal.add(Record(query.key, query.name, read.stamp, relative, rows))

    def _files(self, name: str) -> list[Path]:
        try:
            return [self._thumbnail(name), *(file for writer in self.writers for file in writer.files(name))]
        except OutputError:
            # No name for a file: adding says so.
            return []

    def _write_files(self, query: Query, result: Segmentation | LargeResult) -> None:
        small, shown = self._thumbnail(query.name), result.small if isinstance(result, LargeResult) else result
        made_folder(small.parent)
        write_atomically(small, lambda beside: beside.write_bytes(thumbnail(shown)))
        for writer in self.writers:
            try:
                writer.add(query.name, result, Path(query.path))
            except UnicodeEncodeError as error:
                raise OutputError(
                    f"{query.path!r} is no UTF-8, as files in {str(writer.folder)!r} must be: rename the picture."
                ) from error

    def _check_room(self, size: int) -> None:
        """Whether the disk takes anything, after a file was not written: else an OutputError, which ends the run.

        Encoders of pictures do not say why they failed.
        """
        probe = self.out / STATE / "probe"
        try:
            probe.write_bytes(bytes(min(size, _LARGEST_PROBE) + (1 << 20)))
        except OSError as error:
            raise OutputError(f"cannot write into {str(self.out)!r}: {error}.") from error
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def _thumbnail(self, name: str) -> Path:
        return self.out / STATE / "thumbnails" / f"{name}.jpg"

    def _finish(self, page: Path | None) -> list[Row]:
        for writer in self.writers:
            writer.finish()
        records = list(self.journal.records.values())
        rows = in_order_of_need(row for record in records for row in record.rows)
        write_table(self.out / "results.csv", rows)
        if page is not None:
            thumbnails = {r.rows[0].file: self._thumbnail(r.name) for r in records if r.rows and not r.failed}
            write_review(page, rows, thumbnails, self.labels)
        return rows
