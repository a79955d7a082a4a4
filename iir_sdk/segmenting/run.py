"""The work of a call on its output folder: pictures read, segmented and written, each with its line in the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from iir_sdk.engines.tiled import Tiling
from iir_sdk.errors import IirError, OutputError
from iir_sdk.formats.large import LargeResult
from iir_sdk.pictures.load import Picture
from iir_sdk.results.cleaning import Cleaning
from iir_sdk.results.segmentation import Cut, Segmentation
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.journal import Journal, Record, Row
from iir_sdk.segmenting.outputs import Outputs
from iir_sdk.segmenting.queries import Query
from iir_sdk.segmenting.reading import LargeFile, Read
from iir_sdk.segmenting.review import write_review
from iir_sdk.segmenting.supports import fingerprint
from iir_sdk.segmenting.table import in_order_of_need, write_table

Work: TypeAlias = "Callable[[Sequence[Query], Callable[[Record], None]], None]"
"""Segments pictures and writes their files; hands on the record of each, when its files are whole."""


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
    outputs: Outputs

    @property
    def out(self) -> Path:
        """The output folder."""
        return self.journal.out

    def go(
        self,
        queries: Sequence[Query],
        work: Work,
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

        def done(record: Record) -> None:
            self.journal.add(record)
            bar.update()

        try:
            with bar:
                work(pending, done)
        except KeyboardInterrupt:
            self._finish(page)
            raise
        except OutputError as error:
            count = sum(not record.failed for record in records.values())
            raise OutputError(
                f"{error} {count} pictures are done and stay; make room, and the same call goes on behind them."
            ) from error
        rows = self._finish(page)
        errors = {row.file: row.error for row in rows if row.error}
        return FolderReport(self.out, tuple(rows), len(pending) - len(errors), present, errors)

    def _finish(self, page: Path | None) -> list[Row]:
        for writer in self.outputs.writers:
            writer.finish()
        records = list(self.journal.records.values())
        rows = in_order_of_need(row for record in records for row in record.rows)
        write_table(self.out / "results.csv", rows)
        if page is not None:
            thumbnails = {r.rows[0].file: self.outputs.thumbnail(r.name) for r in records if r.rows and not r.failed}
            write_review(page, rows, thumbnails, self.labels)
        return rows
