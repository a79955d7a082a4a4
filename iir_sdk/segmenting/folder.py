"""Segments whole folders: the work of ``iir-sdk segment``, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iir_sdk.engines.base import Backend
from iir_sdk.engines.tiled import Tile, Tiling
from iir_sdk.errors import ConfigError
from iir_sdk.files import check_writable_place
from iir_sdk.formats.registry import WRITERS
from iir_sdk.records import did_you_mean
from iir_sdk.results.cleaning import Cleaning
from iir_sdk.results.segmentation import Cut
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.journal import Journal, held_folder
from iir_sdk.segmenting.outputs import Outputs
from iir_sdk.segmenting.queries import find_places, named_queries
from iir_sdk.segmenting.run import Cutting, FolderReport, Run, settings_of
from iir_sdk.segmenting.supports import PathText, Shown, Teaching
from iir_sdk.segmenting.work import Cluster, Segmenting, in_this_process

if TYPE_CHECKING:
    import torch

    from iir_sdk.engines.devices import Precision
    from iir_sdk.weights.checkpoint_file import Checkpoint

_AS_OPENED = {"weights": None, "device": "auto", "dtype": None, "backend": "torch", "threads": None}

FORMATS = ("masks", "overlay")
"""Written where nothing else is said."""


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
    sharpen: bool = False,
    fill_holes: bool = False,
    min_area: float = 0,
    keep_largest: bool = False,
    batch_size: int = 8,
    review: PathText | None = None,
    overwrite: bool = False,
    progress: bool = False,
    cluster: Cluster | None = None,
) -> FolderReport:
    """Segment many pictures by a few supports, and write masks, a table and a page to look them over.

    A run that ended early goes on where it was when it is called again: what is written is not done again, pictures
    that changed or failed are. A picture that cannot be used costs no other its masks. One too large for memory is read
    and written in windows, by rasterio. Outputs lie in a folder a format; ``results.csv`` has a row a picture and
    label, those first that need a look.

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
        threshold: see :meth:`FewShotSegmenter.predict`, likewise ``absent_below``, ``tile``, ``overlap`` and
            ``sharpen``.
        fill_holes: see :meth:`Segmentation.cleaned`, likewise ``min_area`` and ``keep_largest``.
        batch_size: pictures computed together; the next ones are read meanwhile.
        review: write a page with all overlays here, ``.html``.
        overwrite: delete what an earlier run of other settings wrote; write into a folder of other files.
        progress: a bar with the time that is left, and pictures a second.
        cluster: an :class:`iir_sdk.ray.Workers`, whose processes do the pictures; None for this process alone.

    Raises:
        PictureNotFoundError: no query, or no support, is at a path.
        OutputError: ``out`` is of another run, or a file cannot be written, as on a full disk; what is written stays.
        NoSupportError, LabelError, ImageError, MaskError, SupportError, DatasetError: the supports are not usable.
        ConfigError: an argument is out of its range.
        MissingDependencyError: a package that a format or the cleaning needs is not installed.
    """
    cut = Cut(threshold, absent_below, sharpen)
    cutting = Cutting(cut, Tiling(tile, overlap), Cleaning(fill_holes, min_area, keep_largest))
    written = checked_formats(formats, WRITERS)
    shown = listed_supports(supports)
    against = _listed(counterexamples, "counterexamples", _is_counterexample, "['photo.jpg'] or [('photo.jpg', 'cat')]")
    if isinstance(labels, str):
        raise ConfigError(f"labels={labels!r} must be a list of labels: [{labels!r}].")
    folder, page = Path(out), None if review is None else Path(review)
    teaching = Teaching(
        shown,
        support_set,
        annotations,
        images,
        support_file,
        [(c, None) if isinstance(c, (str, os.PathLike)) else (c[0], c[1]) for c in against],
        labels,
    )
    # Before the network is loaded, so that a mistyped path is told at once; once, since stdin is read once.
    places = find_places(queries, recursive=recursive, out=folder, masks=teaching.mask_files())
    opening = {"weights": weights, "device": device, "dtype": dtype, "backend": backend, "threads": threads}
    taught = teaching.teach(opened_segmenter(segmenter, opening))
    names = tuple(labels) if labels is not None else taught.supports.labels
    segmenting = Segmenting(taught, names, cutting, written, batch_size, progress=progress)
    segmenting.check()
    with held_folder(folder, overwrite=overwrite):
        journal = Journal(folder)
        if overwrite:
            journal.forget(written)
        journal.start(settings_of(taught, names, cutting, written))
        if page is not None:
            check_writable_place(page)
        outputs = Outputs(folder, [WRITERS[name](folder / name, names) for name in written])
        named = named_queries(places, {record.key: record.name for record in journal.records.values()})
        work = in_this_process(segmenting, outputs) if cluster is None else cluster.work(segmenting, outputs)
        return Run(journal, names, outputs).go(named, work, page=page, progress=progress)


def opened_segmenter(segmenter: FewShotSegmenter | None, opening: dict[str, Any]) -> FewShotSegmenter:
    """The given one, or one opened by these arguments; a ConfigError where both say something."""
    if segmenter is None:
        return FewShotSegmenter(**opening)
    if {**opening, "device": str(opening["device"])} != _AS_OPENED:
        told = ", ".join(f"{name}={value!r:.100}" for name, value in opening.items())
        raise ConfigError(f"{told}: a segmenter keeps what it was opened with; pass these or a segmenter.")
    return segmenter


def listed_supports(supports: Iterable[Any]) -> list[Shown]:
    """Supports as records; a ConfigError says how they are to be given."""
    example = "[('photo.jpg', 'mask.png')] or [('photo.jpg', 'mask.png', 'cat')]"
    shown = _listed(supports, "supports", _is_support, example)
    return [s if isinstance(s, Shown) else Shown(*s) for s in shown]


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


def checked_formats(formats: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """Names of formats, each once; a ConfigError for what is none."""
    if isinstance(formats, str) or not formats:
        raise ConfigError(f"formats={formats!r} must be several names in a list: {', '.join(known)}.")
    for name in formats:
        if name not in known:
            raise ConfigError(f"no format {name!r}{did_you_mean(name, known, 'formats')}")
    return tuple(dict.fromkeys(formats))
