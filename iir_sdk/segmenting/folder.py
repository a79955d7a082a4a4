"""Segments whole folders: the work of ``iir-sdk segment``, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from tqdm import tqdm

from iir_sdk.engines.base import Backend
from iir_sdk.engines.tiled import Tile, Tiling
from iir_sdk.errors import ConfigError, IirError, MissingDependencyError, OutputError
from iir_sdk.files import check_writable_place, made_folder, write_atomically
from iir_sdk.formats.registry import WRITERS
from iir_sdk.formats.writer import Writer
from iir_sdk.pictures.load import Picture
from iir_sdk.records import did_you_mean
from iir_sdk.results.cleaning import Cleaning
from iir_sdk.results.segmentation import Cut, Segmentation
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.journal import STATE, Journal, Record, Row, held_folder
from iir_sdk.segmenting.queries import Query, find_places, named_queries
from iir_sdk.segmenting.reading import Read, read_batches
from iir_sdk.segmenting.review import thumbnail, write_review
from iir_sdk.segmenting.supports import PathText, Shown, Teaching, fingerprint
from iir_sdk.segmenting.table import in_order_of_need, rows_of, write_table

if TYPE_CHECKING:
    import torch

    from iir_sdk.engines.devices import Precision
    from iir_sdk.weights.checkpoint_file import Checkpoint

FORMATS = ("masks", "overlay")
"""Written where nothing else is said."""


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


def segment_folder(
    queries: PathText | Iterable[PathText],
    out: PathText,
    *,
    supports: Iterable[tuple[PathText, PathText] | tuple[PathText, PathText, str] | Shown] = (),
    support_set: PathText | None = None,
    annotations: PathText | None = None,
    images: PathText | None = None,
    support_file: PathText | None = None,
    counterexamples: Iterable[PathText | tuple[PathText, str | None]] = (),
    labels: Sequence[str] | None = None,
    segmenter: FewShotSegmenter | None = None,
    weights: str | os.PathLike[str] | Checkpoint | None = None,
    device: str | torch.device = "auto",
    dtype: Precision = None,
    backend: Backend = "torch",
    threads: int | None = None,
    recursive: bool = False,
    formats: Sequence[str] = FORMATS,
    threshold: float = 0.5,
    absent_below: float = 0.0,
    tile: Tile = None,
    overlap: float = 0.25,
    fill_holes: bool = False,
    min_area: float = 0,
    keep_largest: bool = False,
    batch_size: int = 8,
    review: PathText | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> FolderReport:
    """Segment many pictures by a few supports, and write masks, a table and a page to look them over.

    A run that ended early goes on where it was when it is called again: what is written is not done again, pictures
    that changed or failed are. A picture that cannot be used costs no other its masks. Outputs lie in a folder a
    format; ``results.csv`` has a row a picture and label, those first that need a look.

    Args:
        queries: files, folders, globs, lists (``@list.txt``, a path a line), or ``-`` for a list on stdin.
        out: folder for the outputs: new, empty, or of an earlier run of the same supports, weights and settings.
        supports: pictures with their masks, and with labels where there are several; paths.
        support_set: folder of ``images/`` and ``masks/<class>/``, all of which is shown.
        annotations: what COCO, LabelMe or YOLO tools wrote of pictures that are supports, see
            :func:`iir_sdk.formats.annotations.read_annotations`.
        images: folder of these pictures; None for where the annotations say, and beside them.
        support_file: what :meth:`FewShotSegmenter.save_supports` wrote.
        counterexamples: pictures that do not show the object; with the label where there are several.
        labels: which labels to use of all that the supports have; None for all.
        segmenter: an open one, whose supports count, too, and which stays as it is; None opens one.
        weights: see :class:`FewShotSegmenter`, likewise ``device``, ``dtype``, ``backend`` and ``threads``.
        recursive: folders with all the folders in them.
        formats: see :data:`iir_sdk.formats.registry.WRITERS`.
        threshold: see :meth:`FewShotSegmenter.predict`, likewise ``absent_below``, ``tile`` and ``overlap``.
        fill_holes: see :meth:`Segmentation.cleaned`, likewise ``min_area`` and ``keep_largest``.
        batch_size: pictures computed together; the next ones are read meanwhile.
        review: write a page with all overlays here, ``.html``.
        overwrite: delete what an earlier run of other settings wrote; write into a folder of other files.
        progress: a bar with the time that is left, and pictures a second.

    Raises:
        PictureNotFoundError: no query, or no support, is at a path.
        OutputError: ``out`` is of another run, or a file cannot be written, as on a full disk; what is written stays.
        NoSupportError, LabelError, ImageError, MaskError, SupportError, DatasetError: the supports are not usable.
        ConfigError: an argument is out of its range.
        MissingDependencyError: a package that a format or the cleaning needs is not installed.
    """
    cutting = _Cutting(
        Cut(threshold, absent_below), Tiling(tile, overlap), Cleaning(fill_holes, min_area, keep_largest)
    )
    written = _checked_formats(formats)
    shown = _listed(
        supports, "supports", _is_support, "[('photo.jpg', 'mask.png')] or [('photo.jpg', 'mask.png', 'cat')]"
    )
    against = _listed(counterexamples, "counterexamples", _is_counterexample, "['photo.jpg'] or [('photo.jpg', 'cat')]")
    if isinstance(labels, str):
        raise ConfigError(f"labels={labels!r} must be a list of labels: [{labels!r}].")
    folder, page = Path(out), None if review is None else Path(review)
    teaching = Teaching(
        [s if isinstance(s, Shown) else Shown(*s) for s in shown],
        support_set,
        annotations,
        images,
        support_file,
        [(c, None) if isinstance(c, (str, os.PathLike)) else (c[0], c[1]) for c in against],
        labels,
    )
    # Before the network is loaded, so that a mistyped path is told at once; once, since stdin is read once.
    places = find_places(queries, recursive=recursive, out=folder, masks=teaching.mask_files())
    opened = segmenter
    if opened is None:
        opened = FewShotSegmenter(weights, device=device, dtype=dtype, backend=backend, threads=threads)
    elif (weights, str(device), dtype, backend, threads) != (None, "auto", None, "torch", None):
        raise ConfigError(
            f"weights={weights!r:.100}, device={str(device)!r}, dtype={str(dtype)!r}, backend={backend!r}, "
            f"threads={threads!r}: a segmenter keeps what it was opened with; pass these or a segmenter."
        )
    taught = teaching.teach(opened)
    names = tuple(labels) if labels is not None else taught.supports.labels
    segment = _segmenting(taught, names, cutting, batch_size)
    with held_folder(folder, overwrite=overwrite):
        journal = Journal(folder)
        if overwrite:
            journal.forget(written)
        journal.start(_settings(taught, names, cutting, written))
        if page is not None:
            check_writable_place(page)
        run = _Run(journal, names, [WRITERS[name](folder / name, names) for name in written])
        named = named_queries(places, {record.key: record.name for record in journal.records.values()})
        return run.go(named, segment, batch_size, page=page, progress=progress)


def _listed(given: Any, name: str, fits: Callable[[Any], bool], example: str) -> list[Any]:
    """What is given as a list; a ConfigError says how it is to be."""
    several = [] if isinstance(given, (str, os.PathLike)) else list(given)
    if isinstance(given, (str, os.PathLike)) or not all(map(fits, several)):
        raise ConfigError(f"{name}={given!r:.200} must be a list such as {example}.")
    return several


def _is_support(support: Any) -> bool:
    return isinstance(support, Shown) or (isinstance(support, (tuple, list)) and len(support) in (2, 3))


def _is_counterexample(example: Any) -> bool:
    return isinstance(example, (str, os.PathLike)) or (isinstance(example, (tuple, list)) and len(example) == 2)


@dataclass(frozen=True)
class _Cutting:
    """How pictures become masks."""

    cut: Cut
    tiling: Tiling
    cleaning: Cleaning

    def arguments(self) -> dict[str, Any]:
        """Of ``predict_many``."""
        return {**asdict(self.cut), **asdict(self.tiling)}


def _checked_formats(formats: Sequence[str]) -> tuple[str, ...]:
    if isinstance(formats, str) or not formats:
        raise ConfigError(f"formats={formats!r} must be several names in a list: {', '.join(WRITERS)}.")
    for name in formats:
        if name not in WRITERS:
            raise ConfigError(f"no format {name!r}{did_you_mean(name, WRITERS, 'formats')}")
    return tuple(dict.fromkeys(formats))


def _settings(
    segmenter: FewShotSegmenter, labels: Sequence[str], cutting: _Cutting, formats: Sequence[str]
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


_Outcome: TypeAlias = "tuple[Read, Segmentation | IirError, float]"


def _segmenting(
    segmenter: FewShotSegmenter, labels: Sequence[str], cutting: _Cutting, batch_size: int
) -> Callable[[list[Read]], list[_Outcome]]:
    """What segments a batch; arguments are checked now."""
    settings = {"labels": labels, **cutting.arguments()}
    segmenter.predict_many([], batch_size=batch_size, **settings)

    def segment(batch: list[Read]) -> list[_Outcome]:
        start = perf_counter()
        pictures: list[Any] = [read.outcome for read in batch if isinstance(read.outcome, Picture)]
        predictions = segmenter.predict_many(pictures, batch_size=max(1, len(pictures)), on_error="skip", **settings)
        results = iter([replace(result, cleaning=cutting.cleaning) for result in predictions])
        failed = {skip.position: skip.error for skip in predictions.skipped}
        segmented = iter([failed[i] if i in failed else next(results) for i in range(len(pictures))])
        seconds = (perf_counter() - start) / max(1, len(pictures))
        return [
            (read, read.outcome if isinstance(read.outcome, IirError) else next(segmented), read.seconds + seconds)
            for read in batch
        ]

    return segment


@dataclass(frozen=True)
class _Run:
    """One call's work on an output folder that it holds."""

    journal: Journal
    labels: tuple[str, ...]
    writers: list[Writer]

    @property
    def out(self) -> Path:
        return self.journal.out

    def go(
        self,
        queries: Sequence[Query],
        segment: Callable[[list[Read]], list[_Outcome]],
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

    def _write_batch(self, outcomes: list[_Outcome], bar: Any) -> None:
        for read, outcome, seconds in outcomes:
            self._write(read, outcome, seconds)
            bar.update()

    def _write(self, read: Read, outcome: Segmentation | IirError, seconds: float) -> None:
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
            if isinstance(error, OutputError) and isinstance(outcome, Segmentation):
                self._check_room(outcome.image.nbytes)
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

    def _write_files(self, query: Query, result: Segmentation) -> None:
        small = self._thumbnail(query.name)
        made_folder(small.parent)
        write_atomically(small, lambda beside: beside.write_bytes(thumbnail(result)))
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
            probe.write_bytes(bytes(size + (1 << 20)))
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
