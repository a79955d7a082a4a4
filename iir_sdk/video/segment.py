"""Segments a video: the work of ``iir-sdk video``, in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from iir_sdk.engines.base import Backend
from iir_sdk.engines.tiled import Tiling
from iir_sdk.errors import IirError, OutputError, VideoError
from iir_sdk.files import is_file
from iir_sdk.formats.registry import WRITERS
from iir_sdk.formats.writer import Writer
from iir_sdk.results.cleaning import Cleaning
from iir_sdk.results.segmentation import Cut
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.folder import checked_formats, listed_supports, opened_segmenter
from iir_sdk.segmenting.journal import Journal, Record, Row, Stamp, held_folder
from iir_sdk.segmenting.run import Cutting, settings_of
from iir_sdk.segmenting.supports import PathText, Shown, Teaching
from iir_sdk.segmenting.table import rows_of
from iir_sdk.video.frames import FrameMasks, Prepared, VideoFrame, frame_masks, prepared
from iir_sdk.video.memory import MEMORY, STEADY, Recall
from iir_sdk.video.reading import opened_video
from iir_sdk.video.writing import OverlayVideo, write_frame_table

if TYPE_CHECKING:
    import torch

    from iir_sdk.engines.devices import Precision
    from iir_sdk.weights.checkpoint_file import Checkpoint

VIDEO = "video"
"""The format that is a file of its own: overlays as a video."""
FORMATS = ("masks", VIDEO)
"""Written where nothing else is said."""
KNOWN = (VIDEO, *(name for name in WRITERS if not name.startswith("geo")))
OVERLAY = "overlay.mp4"
TABLE = "results.csv"

_END = "end"
"""Key of the journal's record that says that the video is done."""


@dataclass(frozen=True)
class VideoReport:
    """What a run did.

    Attributes:
        out: the output folder.
        rows: a row a frame and label, in order; ``file`` is the frame's name in the outputs, its number.
        frames: how many there are.
        present: whether an earlier run had done them all, and nothing was left to do.
    """

    out: Path
    rows: tuple[Row, ...] = field(repr=False)
    frames: int
    present: bool


def segment_video(
    video: PathText,
    out: PathText,
    masks: FrameMasks = (),
    *,
    supports: Iterable[tuple[PathText, PathText] | tuple[PathText, PathText, str] | Shown] = (),
    support_file: PathText | None = None,
    labels: Sequence[str] | None = None,
    segmenter: FewShotSegmenter | None = None,
    weights: str | os.PathLike[str] | Checkpoint | None = None,
    device: str | torch.device = "auto",
    dtype: Precision = None,
    backend: Backend = "torch",
    threads: int | None = None,
    formats: Sequence[str] = FORMATS,
    threshold: float = 0.5,
    absent_below: float = 0.0,
    memory: int = MEMORY,
    steady: float = STEADY,
    overwrite: bool = False,
    progress: bool = False,
) -> VideoReport:
    """Segment a video by masks of some of its frames, and write masks, a video of overlays and a table.

    Frames are called by their numbers, ``000000`` on, in a folder a format; ``results.csv`` has a row a frame and
    label. A video that is done is not done again; one that is not is begun anew, since a frame's masks depend on those
    before it.

    Args:
        video: its file.
        out: folder for the outputs: new, empty, or of an earlier run of the same video, masks, weights and settings.
        masks: see :func:`segment_frames`, likewise ``memory`` and ``steady``.
        supports: see :func:`segment_folder`, likewise ``support_file`` and ``labels``.
        segmenter: an open one, whose supports count, too, and which stays as it is; None opens one.
        weights: see :class:`FewShotSegmenter`, likewise ``device``, ``dtype``, ``backend`` and ``threads``.
        formats: ``video`` for overlays as ``overlay.mp4``, and see :data:`iir_sdk.formats.registry.WRITERS`.
        threshold: see :meth:`FewShotSegmenter.predict`, likewise ``absent_below``.
        overwrite: delete what an earlier run of other settings wrote; write into a folder of other files.
        progress: a bar with the time that is left, and frames a second.

    Raises:
        PictureNotFoundError, VideoError: there is no such video; or it ends early or is damaged, which is raised when
            all frames before that are written.
        OutputError: ``out`` is of another run, or a file cannot be written, as on a full disk; what is written stays.
        NoSupportError, LabelError, ImageError, MaskError, SupportError: the masks or supports are not usable.
        ConfigError: an argument is out of its range.
        MissingDependencyError: without ``pip install 'iir-sdk[video]'``, or what a format needs.
    """
    cut, written, marks = Cut(threshold, absent_below), checked_formats(formats, KNOWN), frame_masks(masks)
    recall = Recall(memory, steady)
    teaching = Teaching(listed_supports(supports), support_file=support_file, labels=labels)
    with opened_video(video) as opened:
        # A mistyped path is told before the network is loaded.
        count = opened.count
    opening = {"weights": weights, "device": device, "dtype": dtype, "backend": backend, "threads": threads}
    ready = prepared(video, marks, teaching, opened_segmenter(segmenter, opening), cut, recall)
    folder = Path(out)
    with held_folder(folder, overwrite=overwrite):
        journal = Journal(folder)
        if overwrite:
            journal.forget(name for name in written if name != VIDEO)
            (folder / OVERLAY).unlink(missing_ok=True)
        journal.start(_settings(ready, written))
        run = VideoRun(journal, ready, tuple(WRITERS[n](folder / n, ready.labels) for n in written if n != VIDEO))
        return run.go(VIDEO in written, count, progress)


def _settings(ready: Prepared, written: Sequence[str]) -> dict[str, Any]:
    """All that outputs depend on, as plain values."""
    cutting = Cutting(ready.cut, Tiling(), Cleaning())
    stamp = Stamp.of(str(ready.path))
    return {
        "video": [ready.path.name, stamp.size, stamp.mtime_ns],
        **settings_of(ready.segmenter, ready.labels, cutting, written),
        "memory": int(ready.recall.memory),
        "steady": float(ready.recall.steady),
    }


@dataclass(frozen=True)
class VideoRun:
    """One call's work on an output folder that it holds."""

    journal: Journal
    ready: Prepared
    writers: tuple[Writer, ...]
    times: dict[str, float] = field(default_factory=dict)

    def go(self, overlays: bool, count: int | None, progress: bool) -> VideoReport:
        """Do all frames, and write what belongs to all of them, also where the work ends early."""
        if self._is_done(overlays):
            return self._report(present=True)
        self.journal.records.pop(_END, None)
        try:
            self._do(overlays, count, progress)
        except (VideoError, OutputError) as error:
            raise type(error)(f"{error} {len(self.times)} frames are done: {str(self.journal.out)!r}.") from error
        self.journal.add(Record(_END, _END, Stamp(0, 0), (), ()))
        return self._report(present=False)

    def _do(self, overlays: bool, count: int | None, progress: bool) -> None:
        rates: list[Any] = []
        overlay: OverlayVideo | None = None
        last: Future[None] | None = None
        bar = tqdm(total=count, unit=" frames", disable=not progress, smoothing=0.1)
        try:
            with bar, ThreadPoolExecutor(1, thread_name_prefix="iir-write") as writing:
                start = perf_counter()
                for frame in self.ready.frames(rates):
                    if overlays and overlay is None:
                        overlay = OverlayVideo(self.journal.out / OVERLAY, rates[0])
                    seconds = perf_counter() - start
                    if last is not None:
                        last.result()
                    last = writing.submit(self._write, frame, overlay, seconds)
                    bar.update()
                    start = perf_counter()
                if last is not None:
                    last.result()
        except BaseException:
            # What is whole is kept; the first error is the one to tell.
            with suppress(IirError):
                self._finish(overlay)
            raise
        self._finish(overlay)

    def _write(self, frame: VideoFrame, overlay: OverlayVideo | None, seconds: float) -> None:
        """Everything of one frame, the journal's line last."""
        name = f"{frame.index:06d}"
        for writer in self.writers:
            writer.add(name, frame.result)
        if overlay is not None:
            overlay.add(frame.time, frame.result)
        files = (file for writer in self.writers for file in writer.files(name))
        relative = tuple(file.relative_to(self.journal.out).as_posix() for file in files)
        self.journal.add(Record(name, name, Stamp(0, 0), relative, rows_of(name, frame.result, seconds)))
        self.times[name] = frame.time

    def _finish(self, overlay: OverlayVideo | None) -> None:
        """What belongs to all frames; each is tried, also where another fails, and the first error is raised."""
        steps = [] if overlay is None else [overlay.finish]
        steps += [writer.finish for writer in self.writers]
        steps.append(self._write_table)
        errors = []
        for step in steps:
            try:
                step()
            except IirError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _write_table(self) -> None:
        rows = [row for name in sorted(self.times) for row in self.journal.records[name].rows]
        write_frame_table(self.journal.out / TABLE, self.times, rows)

    def _is_done(self, overlays: bool) -> bool:
        out, records = self.journal.out, self.journal.records
        files = [out / file for record in records.values() for file in record.files]
        files += [out / TABLE, *([out / OVERLAY] if overlays else [])]
        return _END in records and all(map(is_file, files))

    def _report(self, *, present: bool) -> VideoReport:
        names = sorted(name for name in self.journal.records if name != _END)
        rows = tuple(row for name in names for row in self.journal.records[name].rows)
        return VideoReport(self.journal.out, rows, len(names), present)
