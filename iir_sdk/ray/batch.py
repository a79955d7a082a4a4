"""Any number of pictures into Parquet: each row once, whatever is killed, and gone on from where a run ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from iir_sdk.engines.base import Backend
from iir_sdk.engines.tiled import Tile, Tiling
from iir_sdk.errors import ConfigError, IirError, OutputError
from iir_sdk.files import lock_folder, made_folder
from iir_sdk.formats.large import LargeResult
from iir_sdk.formats.rle import encode
from iir_sdk.ray.attempts import running_attempts
from iir_sdk.ray.cluster import connected
from iir_sdk.ray.items import Item, items_of, read_items
from iir_sdk.ray.parts import KnownIds, Parts, Present, part_name
from iir_sdk.ray.sources import Columns, Paths, Source, source_of
from iir_sdk.ray.store import Store
from iir_sdk.ray.workers import Worker, Workers
from iir_sdk.results.cleaning import Cleaning
from iir_sdk.results.segmentation import Cut, Segmentation
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.folder import listed_supports, opened_segmenter
from iir_sdk.segmenting.journal import STATE, Row
from iir_sdk.segmenting.run import Cutting, settings_of
from iir_sdk.segmenting.supports import PathText, Shown, Teaching
from iir_sdk.segmenting.table import rows_of
from iir_sdk.segmenting.work import Segmenting

if TYPE_CHECKING:
    import torch

    from iir_sdk.engines.devices import Precision
    from iir_sdk.weights.checkpoint_file import Checkpoint

PART_SIZE = 64
"""Pictures of a part: what a worker that dies has to do again, and a file of some 60 kB."""
_LOOKS = 0.5
"""Seconds between two looks at how far the workers are."""
_LISTED = 100
"""Errors that a report lists."""


@dataclass(frozen=True)
class BatchReport:
    """What a call did.

    Attributes:
        out: folder or URI of the parts, ``*.parquet``.
        segmented: pictures segmented now.
        present: pictures of the input that earlier calls had done.
        failed: pictures of the output that have an error.
        rows: of the output, a picture and label each, of earlier calls as well.
        errors: of the pictures that failed the first hundred, by id.
        seconds: that the call took.
    """

    out: str
    segmented: int
    present: int
    failed: int
    rows: int
    errors: dict[str, str] = field(repr=False)
    seconds: float


@dataclass(frozen=True)
class PartJob:
    """What workers get: how to segment, whence and where to, and what is done already."""

    segmenting: Segmenting
    parts: Parts
    columns: Columns
    known: KnownIds


class PartWorker(Worker[Item, "dict[str, Any]"]):
    """Writes a batch of rows as a part, before it answers."""

    def open(self, job: PartJob) -> None:
        """See :class:`Worker`."""
        self.job = job
        self.segment = job.segmenting.batches()

    def answers(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """See :class:`Worker`."""
        items = items_of(batch, self.job.columns)
        held = self.job.known.hold([item.id for item in items])
        pending = [item for item, there in zip(items, held, strict=True) if not there]
        answer = {"part": "", "pictures": len(pending), "present": len(items) - len(pending)}
        if not pending:
            return [answer]
        name = part_name(item.id for item in pending)
        # A task that is done again has parts that it had finished before.
        if self.job.parts.pictures_in(name) != len(pending):
            self.job.parts.write(name, self.made_safely(pending, [item.id for item in pending]))
        return [{**answer, "part": name}]

    def made_of(self, given: list[Item]) -> list[dict[str, Any]]:
        """See :class:`Worker`."""
        batches = read_items(given, self.job.segmenting.batch_size)
        outcomes = ((read.query.path, out, s) for batch in batches for read, out, s in self.segment(batch))
        return [row for text, outcome, seconds in outcomes for row in part_rows(text, outcome, seconds)]

    def left_out(self, given: Item, error: IirError) -> list[dict[str, Any]]:
        """See :class:`Worker`."""
        return part_rows(given.id, error, 0.0)


def part_rows(text: str, outcome: Segmentation | LargeResult | IirError, seconds: float) -> list[dict[str, Any]]:
    """Rows of one picture: one a label, or the one of its error."""
    if isinstance(outcome, IirError):
        return [{"id": text, "seconds": seconds, "error": str(outcome)}]
    assert isinstance(outcome, Segmentation), "items are read whole"
    rows = rows_of(text, outcome, seconds)
    return [_part_row(row, outcome, number) for number, row in enumerate(rows, 1)]


def _part_row(row: Row, result: Segmentation, number: int) -> dict[str, Any]:
    left, top, right, bottom = row.box or (0, 0, 0, 0)
    mask = result.label_map[top:bottom, left:right] == number
    height, width = result.image.shape[:2]
    runs = encode(mask, (height, width), (left, top))
    return {
        "id": row.file,
        "label": row.label,
        "score": row.score,
        "confidence": row.confidence,
        "box": row.box,
        "area": row.area,
        "size": runs["size"],
        "counts": runs["counts"],
        "seconds": row.seconds,
    }


def segment(
    pictures: Paths | Any,
    out: PathText,
    *,
    supports: Iterable[tuple[PathText, PathText] | tuple[PathText, PathText, str] | Shown] = (),
    support_file: PathText | None = None,
    labels: Sequence[str] | None = None,
    segmenter: FewShotSegmenter | None = None,
    weights: str | os.PathLike[str] | Checkpoint | None = None,
    device: str | torch.device = "auto",
    dtype: Precision = None,
    backend: Backend = "torch",
    threads: int | None = 1,
    id_column: str = "id",
    picture_column: str | None = None,
    recursive: bool = False,
    threshold: float = 0.5,
    absent_below: float = 0.0,
    tile: Tile = None,
    overlap: float = 0.25,
    sharpen: bool = False,
    fill_holes: bool = False,
    min_area: float = 0,
    keep_largest: bool = False,
    batch_size: int = 8,
    part_size: int = PART_SIZE,
    cluster: Workers | None = None,
    retry_errors: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> BatchReport:
    """Segment any number of pictures by Ray's workers, into Parquet: a row a picture and label, masks as COCO's RLE.

    Columns of the output: ``id``, ``label``, ``score``, ``confidence``, ``box`` (x0, y0, x1, y1), ``area`` in pixels,
    ``size`` (height, width) and ``counts`` of the mask's run lengths, ``seconds``, ``error``. A picture that cannot be
    used is a row with an error. Called again, it does what the output does not hold, also after this process or workers
    were killed: no picture is lost, and none is there twice, which is checked at the end.

    Args:
        pictures: files, folders, globs, lists (``@list.txt``) and URIs (``s3://``, ``gs://``, ...); Parquet
            (``*.parquet``), or a ``ray.data.Dataset``, of ids and of pictures as bytes, paths, URIs or arrays.
        out: folder or URI for the parts: new, empty, or of an earlier call of the same supports, weights and settings.
        supports: pictures with their masks, and with labels where there are several; paths.
        support_file: what :meth:`FewShotSegmenter.save_supports` wrote.
        labels: which labels to use of all that the supports have; None for all.
        segmenter: an open one, whose supports count, too; it goes to the workers once a machine.
        weights: see :class:`FewShotSegmenter`; likewise ``device``, ``dtype``, ``backend`` and ``threads``, of each
            worker.
        id_column: the dataset's column of ids, of which no two are the same.
        picture_column: its column of pictures; None for ``bytes``, ``path`` or ``image``, the first that is there.
        recursive: folders with all the folders in them.
        threshold: see :meth:`FewShotSegmenter.predict`, likewise ``absent_below``, ``tile``, ``overlap`` and
            ``sharpen``.
        fill_holes: see :meth:`Segmentation.cleaned`, likewise ``min_area`` and ``keep_largest``.
        batch_size: pictures computed together, fewer of large ones, and where memory is short.
        part_size: pictures of one file of the output; 1,000 for many millions of pictures.
        cluster: which workers; None for one a core of this machine.
        retry_errors: do again what has an error in the output.
        overwrite: delete an earlier call's parts.
        progress: a bar with the time that is left, and pictures a second.

    Raises:
        OutputError: ``out`` is of another run, or cannot be written, as on a full disk: what is written stays, and the
            same call goes on. Or the output does not hold every picture once, as where two have the same id.
        PictureNotFoundError: a path leads to no picture.
        ConfigError: an argument is out of its range, or no cluster is at the address.
        MissingDependencyError: Ray or pycocotools is not installed.
        NoSupportError, LabelError, ImageError, MaskError, SupportError: the supports are not usable.
    """
    start = perf_counter()
    if type(part_size) is not int or part_size < 1:
        raise ConfigError(f"part_size={part_size!r} must be an integer of at least 1.")
    cutting = Cutting(
        Cut(threshold, absent_below, sharpen), Tiling(tile, overlap), Cleaning(fill_holes, min_area, keep_largest)
    )
    teaching = Teaching(listed_supports(supports), support_file=support_file, labels=labels)
    opening: dict[str, Any] = {"weights": weights, "device": device, "dtype": dtype, "backend": backend}
    opening["threads"] = threads if segmenter is None or threads != 1 else None
    workers = cluster or Workers()
    with connected(workers.address):
        taught = teaching.teach(opened_segmenter(segmenter, opening))
        names = tuple(labels) if labels is not None else taught.supports.labels
        segmenting = Segmenting(taught, names, cutting, ("parquet",), batch_size)
        segmenting.check()
        parts = Parts(Store.of(out))
        with _held(parts.store):
            parts.start(settings_of(taught, names, cutting, ("parquet",)), overwrite=overwrite)
            before = parts.without_doubles(parts.present(), ())
            if retry_errors:
                before = parts.without_errors(before)
            source = source_of(
                pictures,
                Columns(id_column, picture_column),
                before.known(),
                part_size=part_size,
                recursive=recursive,
                out=parts.store.place,
                masks=teaching.mask_files(),
            )
            job = PartJob(segmenting, parts, source.columns, before.known())
            with _bar(source, progress) as bar:
                counts, present = _written(workers, source, job, part_size, bar)
            after = parts.without_doubles(parts.present(), [*before.names, *counts])
            after.check(counts, source.ids)
    return _report(parts, after, sum(counts.values()), present, perf_counter() - start)


def _written(workers: Workers, source: Source, job: PartJob, part_size: int, bar: Any) -> tuple[dict[str, int], int]:
    """Have workers write all parts: pictures of each, by its name; and how many pictures were there before."""
    import ray

    counts: dict[str, int] = {}
    present = 0 if source.ids is None else len(source.ids) - (source.pending or 0)
    if source.pending == 0:
        return counts, present
    try:
        with running_attempts() as attempts, _watched(bar, lambda: int(ray.get(attempts.progress.remote()))):
            answers = workers.answers(
                source.dataset, PartWorker, job, attempts, batch=part_size, cores=source.cores, spare=source.spare
            )
            for answer in answers:
                present += answer["present"]
                if answer["part"]:
                    counts[answer["part"]] = answer["pictures"]
    except OutputError as error:
        raise OutputError(f"{error} What is written stays; make room, and the same call goes on behind it.") from error
    bar.update(sum(counts.values()) + present - bar.n)
    return counts, present


@contextmanager
def _held(store: Store) -> Iterator[None]:
    """Hold a folder alone; of an object store nobody can."""
    if not store.local:
        yield
        return
    folder = Path(store.place)
    made_folder(folder / STATE)
    taken = OutputError(f"another run is writing into {store.place!r}: wait for its end, or name another out.")
    lock = lock_folder(folder / STATE / "lock", folder, taken)
    try:
        for leftover in folder.glob(".iir-*"):
            with suppress(OSError):
                leftover.unlink()
        yield
    finally:
        lock.release()


@contextmanager
def _bar(source: Source, progress: bool) -> Iterator[Any]:
    total = None if source.ids is None else len(source.ids)
    before = 0 if source.ids is None else len(source.ids) - (source.pending or 0)
    with tqdm(total=total, initial=before, unit=" pictures", disable=not progress, smoothing=0.1) as bar:
        yield bar


@contextmanager
def _watched(bar: Any, count: Callable[[], int]) -> Iterator[None]:
    """Let the bar show what workers have counted, now and then."""
    ended, start = threading.Event(), bar.n

    def watch() -> None:
        while not ended.wait(_LOOKS):
            with suppress(Exception):  # only a bar
                bar.update(start + count() - bar.n)

    thread = threading.Thread(target=watch, name="iir-progress", daemon=True)
    with nullcontext() if bar.disable else _running(thread, ended):
        yield


@contextmanager
def _running(thread: threading.Thread, ended: threading.Event) -> Iterator[None]:
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1)


def _report(parts: Parts, after: Present, done: int, present: int, seconds: float) -> BatchReport:
    errors = after.errors()
    shown = dict(list(errors.items())[:_LISTED])
    return BatchReport(parts.store.place, done, present, len(errors), after.rows(), shown, seconds)
