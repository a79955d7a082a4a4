"""The SDK's main class: add a support, predict on any picture."""

from __future__ import annotations

import os
import reprlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.base import Backend, Engine, TaskGroup
from iir_sdk.engines.open import open_engine
from iir_sdk.engines.teaching import Taught
from iir_sdk.engines.tiled import CloserLook, Tile, Tiling
from iir_sdk.errors import ConfigError, IirError, PrecisionError
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.pictures.source import ImageSource
from iir_sdk.pictures.tiles import InMemory, Windowed
from iir_sdk.results.full_size import Segmented
from iir_sdk.results.predictions import OnError, Predictions, check_collection
from iir_sdk.results.segmentation import Cut, Segmentation, segmentation
from iir_sdk.results.sharpening import sharpened
from iir_sdk.supports.bank import SupportBank
from iir_sdk.weights.hub import HubOptions

if TYPE_CHECKING:
    import torch

    from iir_sdk.engines.devices import Precision
    from iir_sdk.weights.checkpoint_file import Checkpoint


@dataclass(frozen=True)
class Asked:
    """By what a picture is to be segmented, for whoever computes several requests together.

    Attributes:
        tasks: what :meth:`Engine.segment_each` takes.
        result: of the picture and the engine's outcome, with the milliseconds of its stages; raises as
            :meth:`FewShotSegmenter.predict` does.
    """

    tasks: Sequence[TaskGroup]
    result: Callable[[Picture, Segmented, Mapping[str, float]], Segmentation]


class FewShotSegmenter(Taught):
    """Segments whatever its supports show, in any picture, without training.

    A support is encoded once, when it is added; ``predict`` runs on the kept encodings and writes nothing on the
    object, so several threads may predict at once.

    Args:
        weights: a checkpoint's name, ``.safetensors`` file, folder or ``owner/name`` on the Hub, or a loaded
            :class:`Checkpoint` or engine; None is the embedded default. With the other backends also a folder that
            ``iir-sdk export onnx`` wrote.
        device: ``auto`` (CUDA, else MPS, else CPU) or a torch device.
        dtype: None or ``float32``; ``bfloat16`` or ``float16`` for autocast; ``auto`` for bfloat16 where the device
            computes in it, else float32. Torch's own dtypes do as well.
        backend: ``torch``; or ``openvino``, the fastest on a CPU, or ``onnxruntime``: both without torch once the
            weights are exported, which the first use does.
        token_budget: most tokens that a label's supports are compared by; beyond it similar ones are merged, so that
            fifty shots cost what a few do. A single support is never merged.
        threads: how many threads it computes with; None for what the backend takes by itself, as a rule all cores. One
            is the fastest where other processes keep the cores busy. Only its own computing changes: with torch, that
            of the calling thread, for as long as a call takes.

    Raises:
        WeightsNotFoundError, IntegrityError, WeightsError, HubError: the checkpoint cannot be had or trusted.
        DeviceError: the device is not there.
        ConfigError: the dtype, backend or budget does not fit.
        PrecisionError: in this dtype the backend does not give the masks of float32 on this machine.
        MissingDependencyError: the backend is not installed.

    Example:
        >>> segmenter = FewShotSegmenter()
        >>> segmenter.add_support("cat.jpg", "cat_mask.png", label="cat")
        >>> segmenter.predict("street.jpg").mask
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | Checkpoint | Engine | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: Precision = None,
        backend: Backend = "torch",
        token_budget: int = 384,
        threads: int | None = None,
    ) -> None:
        if type(token_budget) is not int or token_budget < 2:
            raise ConfigError(f"token_budget={token_budget!r} must be an integer of at least 2.")
        if not isinstance(weights, Engine):
            weights = open_engine(weights, HubOptions(), device=device, dtype=dtype, backend=backend, threads=threads)
        elif (str(device), dtype, backend, threads) != ("auto", None, "torch", None):
            raise ConfigError(
                f"device={str(device)!r}, dtype={str(dtype)!r}, backend={backend!r}, threads={threads!r}: an engine "
                "keeps what it was opened with; open its weights anew."
            )
        self.engine = weights
        self.token_budget = token_budget
        self._hold(SupportBank())

    def __getstate__(self) -> dict[str, object]:
        """Without the lock, and without what can be made ready again."""
        return {"engine": self.engine, "token_budget": self.token_budget, "supports": self.supports}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """For copies and pickles."""
        self.engine, self.token_budget = state["engine"], state["token_budget"]
        self._hold(state["supports"])

    def __repr__(self) -> str:
        engine, bank = self.engine.identity, self.supports
        shots, others = (Counter(e.label for e in kind) for kind in (bank.supports, bank.counterexamples))
        beside = f", counterexamples={reprlib.repr(dict(others))}" if others else ""
        return (
            f"FewShotSegmenter({engine.name!r}, backend={engine.backend!r}, device={engine.place!r}, "
            f"dtype={engine.precision!r}, shots={reprlib.repr(dict(shots))}{beside})"
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str | torch.device = "auto",
        dtype: Precision = None,
        backend: Backend = "torch",
        token_budget: int = 384,
        threads: int | None = None,
    ) -> FewShotSegmenter:
        """Load verified weights: embedded, else on disk, else the manifest's on the Hub, else any ``owner/name`` there.

        Args:
            name_or_path: one of :func:`iir_sdk.list_weights`, a ``.safetensors`` file, a folder that
                :meth:`save_pretrained` wrote, or a repository on the Hub.
            revision: branch, tag or commit on the Hub; None for the manifest's pinned commit, or ``main``.
            cache_dir: folder of the Hub's cache; None for its usual one.
            token: access token; True for the one that was logged in with.
            local_files_only: never ask the network.
            force_download: fetch again what the cache holds.
            device: see the class; likewise ``dtype``, ``backend``, ``token_budget`` and ``threads``.

        Raises:
            WeightsNotFoundError: it leads nowhere, or is not on the Hub yet.
            IntegrityError: size, sha256, tensors or values are not the expected ones, even after a fresh download.
            WeightsError, ConfigError: not a checkpoint of this package, or out of bounds.
            HubError, HubAccessError, OutputError: the Hub did not deliver or refuses; its cache cannot be written.
        """
        options = HubOptions(revision, cache_dir, token, local_files_only, force_download)
        engine = open_engine(name_or_path, options, device=device, dtype=dtype, backend=backend, threads=threads)
        return cls(engine, token_budget=token_budget)

    def predict(
        self,
        query: ImageSource,
        *,
        labels: Sequence[str] | None = None,
        threshold: float = 0.5,
        absent_below: float = 0.0,
        tile: Tile = None,
        overlap: float = 0.25,
        sharpen: bool = False,
        page: int | None = None,
    ) -> Segmentation:
        """Segment one picture at its own size.

        Args:
            query: a path, a file's bytes, an open binary file, a PIL image, a uint8 array ``(H, W, 3)`` or a float
                tensor ``(3, H, W)`` in [0, 1]; RGB.
            labels: which labels, in this order; None for all.
            threshold: a pixel belongs to a mask where its probability exceeds this, in [0, 1].
            absent_below: labels with a score below this get an empty mask, in [0, 1]; 0.5 for pictures that may well
                not show the object.
            tile: of a large picture with small objects, the side in pixels of tiles that are looked at one by one;
                ``auto`` for what the supports say of the object's size, and only where tiles give more than the whole
                picture does; None for the whole picture alone.
            overlap: least share of a tile's side that it has in common with the next one, in [0, 0.5].
            sharpen: draw the masks' edges to those of the picture, see :mod:`iir_sdk.results.sharpening`: closer where
                colours tell the object from what is around it.
            page: which one of a file of several pages or frames, from 0; None is the first, with a warning.

        Raises:
            NoSupportError: no support was added.
            LabelError: a label has no support.
            ImageError, PictureNotFoundError: the picture cannot be used.
            ConfigError: ``threshold``, ``absent_below``, ``tile``, ``overlap`` or ``sharpen`` is out of its range.
            PrecisionError: numbers overflowed in the chosen dtype.
        """
        segment = self._segmenting(labels, Cut(threshold, absent_below, sharpen), Tiling(tile, overlap))
        (outcome,) = segment([load_picture(query, what="query", page=page)])
        if isinstance(outcome, IirError):
            raise outcome
        return outcome

    def predict_many(
        self,
        queries: Iterable[ImageSource],
        *,
        labels: Sequence[str] | None = None,
        threshold: float = 0.5,
        absent_below: float = 0.0,
        tile: Tile = None,
        overlap: float = 0.25,
        sharpen: bool = False,
        batch_size: int = 8,
        on_error: OnError = "raise",
        page: int | None = None,
    ) -> Predictions:
        """Segment many pictures, in order, a batch at a time; each result is as :meth:`predict` gives it.

        The supports in use are those of the moment of the call. A picture that cannot be used costs no other its
        result: its error, which names its position, is raised after the results of all before it, and ``next`` then
        goes on behind it; or it is skipped, and listed in the returned iterator's ``skipped``.

        Args:
            queries: pictures as :meth:`predict` takes them.
            labels: see :meth:`predict`; likewise ``threshold``, ``absent_below``, ``tile``, ``overlap``,
                ``sharpen`` and ``page``.
            batch_size: pictures read and computed together; an integer of at least 1.
            on_error: ``raise`` or ``skip``.

        Raises:
            ConfigError: ``batch_size`` or ``on_error`` is out of its range.
            ImageError: ``queries`` is one picture and not a collection of them; further as :meth:`predict`.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r} must be an integer of at least 1.")
        check_collection(queries)
        segment = self._segmenting(labels, Cut(threshold, absent_below, sharpen), Tiling(tile, overlap))
        return Predictions(queries, segment, batch_size=int(batch_size), on_error=on_error, page=page)

    def asked(self, *, labels: Sequence[str] | None, cut: Cut, tiling: Tiling) -> Asked:
        """What the present supports of labels make of a picture, in the engine's part and the rest.

        A server's replicas compute the former for several requests at once. Raises as :meth:`predict` does.
        """
        names, tasks, closer = self._asked(labels, cut, tiling)

        def result(picture: Picture, segmented: Segmented, timings: Mapping[str, float]) -> Segmentation:
            (outcome,) = self._results(names, cut, closer, [picture], [segmented], timings)
            if isinstance(outcome, IirError):
                raise outcome
            return outcome

        return Asked(tasks, result)

    def segment_windows(
        self, picture: Windowed, *, labels: Sequence[str] | None, cut: Cut, tiling: Tiling
    ) -> tuple[tuple[str, ...], Segmented]:
        """Labels, and maps at the network's grid, of a picture that is read in windows: for files beyond memory.

        :func:`iir_sdk.segment_large` reads and writes such files. Raises as :meth:`predict` does.
        """
        names, tasks, closer = self._asked(labels, cut, tiling, all_tiles=True)
        (segmented,), _timings = self.engine.segment([picture.overview()], tasks)
        segmented = segmented if closer is None else closer.segmented(picture, segmented)
        if not np.isfinite(segmented.leads).all():
            raise self._overflow
        return names, segmented

    def segment_beside(
        self, picture: Picture, further: Sequence[TaskGroup], *, labels: Sequence[str] | None, cut: Cut
    ) -> tuple[tuple[str, ...], Segmented, NDArray[np.float32] | None, Mapping[str, float]]:
        """Labels, and maps at the network's grid by their supports and, behind these, by further tasks.

        Then what the picture's places look like (:meth:`Engine.segment_with_looks`), and milliseconds.
        :func:`iir_sdk.segment_video` segments by what earlier frames showed, beside the supports. Raises as
        :meth:`predict` does.
        """
        names, tasks, _ = self._asked(labels, cut, Tiling())
        behind = [TaskGroup(tuple(len(names) + column for column in task.columns), task.state) for task in further]
        segmented, looks, timings = self.engine.segment_with_looks(picture.pixels, [*tasks, *behind])
        if not np.isfinite(segmented.leads).all():
            raise self._overflow
        return names, segmented, looks, timings

    def _segmenting(
        self, labels: Sequence[str] | None, cut: Cut, tiling: Tiling
    ) -> Callable[[list[Picture]], list[Segmentation | IirError]]:
        """What segments pictures by the present supports of labels, all arguments checked."""
        names, tasks, closer = self._asked(labels, cut, tiling)
        return partial(self._segment, names, tasks, cut, closer)

    def _asked(
        self, labels: Sequence[str] | None, cut: Cut, tiling: Tiling, *, all_tiles: bool = False
    ) -> tuple[tuple[str, ...], list[TaskGroup], CloserLook | None]:
        """The present supports of labels, and what looks closer, if anything; all arguments checked."""
        ready = self._ready
        names = ready.names(labels)
        if cut.absent_below and not self.engine.identity.calibrated:
            raise ConfigError(
                f"absent_below={cut.absent_below}: {self.engine.identity.name!r} is not calibrated: iir-sdk calibrate."
            )
        closer = None
        if tiling.tile is not None:
            closer = CloserLook(self.engine, tiling, ready, names, all_tiles=all_tiles)
        return names, ready.prepared(names), closer

    @property
    def _overflow(self) -> PrecisionError:
        precision = self.engine.identity.precision
        return PrecisionError(f"the network overflowed in {precision}; use dtype=None or 'bfloat16'.")

    def _segment(
        self,
        names: tuple[str, ...],
        tasks: list[TaskGroup],
        cut: Cut,
        closer: CloserLook | None,
        pictures: list[Picture],
    ) -> list[Segmentation | IirError]:
        segmented, timings = self.engine.segment([p.pixels for p in pictures], tasks)
        return self._results(names, cut, closer, pictures, segmented, timings)

    def _results(
        self,
        names: tuple[str, ...],
        cut: Cut,
        closer: CloserLook | None,
        pictures: list[Picture],
        segmented: list[Segmented],
        timings: Mapping[str, float],
    ) -> list[Segmentation | IirError]:
        if closer is not None:
            before = time.perf_counter()
            segmented = [closer.segmented(InMemory(p.pixels), s) for p, s in zip(pictures, segmented, strict=True)]
            timings = {**timings, "tiles": (time.perf_counter() - before) * 1000}
        finite = [bool(np.isfinite(s.leads).all()) for s in segmented]
        if cut.sharpen:
            before = time.perf_counter()
            pairs = zip(pictures, segmented, finite, strict=True)
            segmented = [replace(s, leads=sharpened(s.leads, p.pixels)) if ok else s for p, s, ok in pairs]
            timings = {**timings, "sharpening": (time.perf_counter() - before) * 1000}
        return [
            segmentation(names, s, image=p.pixels, cut=cut, timings=timings) if ok else self._overflow
            for p, s, ok in zip(pictures, segmented, finite, strict=True)
        ]
