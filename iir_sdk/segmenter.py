"""The SDK's main class: add a support, predict on any picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iir_sdk.engine import Backend, Engine, TaskGroup
from iir_sdk.errors import ConfigError, ImageError, LabelError, NoSupportError, PrecisionError
from iir_sdk.open_engine import open_engine
from iir_sdk.pictures.load import ImageSource, Picture, load_mask, load_picture
from iir_sdk.preprocessing import Preprocessing
from iir_sdk.result import Cut, Segmentation, segmentation
from iir_sdk.supports.bank import Support, SupportBank, read_supports
from iir_sdk.supports.cache import HeldSupports
from iir_sdk.supports.encoded import KeptState, join_shots
from iir_sdk.supports.fresh_lock import FreshLock
from iir_sdk.weights.hub import HubOptions

if TYPE_CHECKING:
    import torch

    from iir_sdk.model.iir import IIR
    from iir_sdk.torch_engine import Precision, TorchEngine
    from iir_sdk.weights.checkpoint_file import Checkpoint
    from iir_sdk.weights.entry import WeightsEntry


class FewShotSegmenter:
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

    Raises:
        WeightsNotFoundError, IntegrityError, WeightsError, HubError: the checkpoint cannot be had or trusted.
        DeviceError: the device is not there.
        ConfigError: the dtype, backend or budget does not fit.
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
    ) -> None:
        if type(token_budget) is not int or token_budget < 2:
            raise ConfigError(f"token_budget={token_budget!r} must be an integer of at least 2.")
        if not isinstance(weights, Engine):
            weights = open_engine(weights, HubOptions(), device=device, dtype=dtype, backend=backend)
        self.engine: Engine = weights
        self.token_budget = token_budget
        self._held = HeldSupports()
        self._adding = FreshLock()

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
            device: see the class; likewise ``dtype``, ``backend`` and ``token_budget``.

        Raises:
            WeightsNotFoundError: it leads nowhere, or is not on the Hub yet.
            IntegrityError: size, sha256, tensors or values are not the expected ones, even after a fresh download.
            WeightsError, ConfigError: not a checkpoint of this package, or out of bounds.
            HubError, HubAccessError, OutputError: the Hub did not deliver or refuses; its cache cannot be written.
        """
        options = HubOptions(revision, cache_dir, token, local_files_only, force_download)
        engine = open_engine(name_or_path, options, device=device, dtype=dtype, backend=backend)
        return cls(engine, token_budget=token_budget)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        description: str | None = None,
        license: str | None = None,
        training_data: Sequence[str] | None = None,
    ) -> WeightsEntry:
        """Write ``model.safetensors``, ``config.json`` and a model card, for :meth:`from_pretrained` to load.

        Args:
            folder: made if missing; files of these names in it are replaced.
            name: of the checkpoint; None keeps the present one, likewise for the rest.
            description: one line.
            license: SPDX identifier of the weights' licence.
            training_data: names of the training sets.

        Returns:
            What was saved: sizes, sha256 and the rest.

        Raises:
            WeightsError: a value breaks its rule.
            OutputError: the folder cannot be written.
        """
        from iir_sdk.weights.saving import described, save_folder

        entry = described(self.checkpoint.entry, name, description, license, training_data)
        return save_folder(replace(self.checkpoint, entry=entry, model=self.model), folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        commit_message: str = "Upload an iir_sdk checkpoint",
        name: str | None = None,
        description: str | None = None,
        license: str | None = None,
        training_data: Sequence[str] | None = None,
    ) -> WeightsEntry:
        """Save as :meth:`save_pretrained` does, and commit it to a repository on the Hub, made if missing.

        Returns:
            What was published, with the commit as ``revision``: fetched back from the Hub and verified.

        Raises:
            WeightsError: a value breaks its rule, or no licence is stated.
            HubError, HubAccessError, WeightsNotFoundError: the Hub did not take it.
            IntegrityError: what the Hub gives back is not what was sent.
        """
        from iir_sdk.weights.saving import described, publish_checkpoint

        entry = described(self.checkpoint.entry, name, description, license, training_data)
        checkpoint = replace(self.checkpoint, entry=entry, model=self.model)
        return publish_checkpoint(checkpoint, repo_id, token=token, private=private, message=commit_message)

    @property
    def torch_engine(self) -> TorchEngine:
        """The engine where it is PyTorch's: its ``model``, ``device`` and the checkpoint's file are its own.

        Raises:
            ConfigError: another backend runs the network.
        """
        from iir_sdk.torch_engine import TorchEngine

        if not isinstance(self.engine, TorchEngine):
            raise ConfigError(f"this needs backend='torch'; {type(self.engine).__name__} holds no torch network.")
        return self.engine

    @property
    def checkpoint(self) -> Checkpoint:
        """The verified weights; raises as :attr:`torch_engine` does."""
        return self.torch_engine.checkpoint

    @property
    def model(self) -> IIR:
        """The network as loaded; raises as :attr:`torch_engine` does, likewise :attr:`device` and :attr:`dtype`."""
        return self.torch_engine.model

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.torch_engine.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.torch_engine.dtype

    @property
    def preprocessing(self) -> Preprocessing:
        """What its pictures go through."""
        return self.engine.preprocessing

    @property
    def supports(self) -> SupportBank:
        """All supports, an immutable collection."""
        return self._held.bank

    def add_support(self, image: ImageSource, mask: ImageSource, *, label: str = "object") -> Support:
        """Encode one example of a label and keep it; further ones of the same label are further shots.

        Args:
            image: a path, PIL image, uint8 array ``(H, W, 3)`` or float tensor ``(3, H, W)`` in [0, 1]; RGB.
            mask: the same kinds, one channel, the image's size; nonzero is the object.
            label: its name.

        Raises:
            ImageError, MaskError, PictureNotFoundError: the picture or mask cannot be used.
            LabelError: the label is not a non-empty string.
        """
        if not isinstance(label, str) or not label:
            raise LabelError(f"label={label!r} must be a non-empty string.")
        picture = load_picture(image)
        state = self.engine.encode(picture.pixels, load_mask(mask, picture))
        support = Support(label, state, picture.size)
        self._add(support)
        return support

    def task(self, states: Sequence[KeptState]) -> KeptState:
        """What a label is compared by: all its supports together, within the token budget."""
        return join_shots(states).within(max(self.token_budget, max(s.tokens for s in states)))

    def _add(self, *supports: Support) -> None:
        with self._adding:
            self._hold(self._held.bank.adding(*supports))

    def _hold(self, bank: SupportBank) -> None:
        """Take a bank, and make ready what predicting by all its labels needs; only called under the lock."""
        old, tasks = self._held, {}
        for label in bank.labels:
            own = bank.of_label(label)
            unchanged = label in old.tasks and own == old.bank.of_label(label)
            tasks[label] = old.tasks[label] if unchanged else self.task([s.state for s in own])
        self._held = HeldSupports(bank, tasks, self.engine.prepare(list(tasks.values())) if tasks else [])

    def remove_support(self, which: Support | str) -> None:
        """Forget one support, or all supports of a label.

        Raises:
            LabelError: nothing fits.
        """
        with self._adding:
            self._hold(self._held.bank.removing(which))

    def clear_supports(self) -> None:
        """Forget all supports."""
        with self._adding:
            self._held = HeldSupports()

    def save_supports(self, path: str | os.PathLike[str]) -> None:
        """Write all supports to one safetensors file, bound to this checkpoint.

        Raises:
            OutputError: it cannot be written.
            NoSupportError: there is none.
        """
        bank = self._held.bank
        if not len(bank):
            raise NoSupportError("there are no supports to save; call add_support(image, mask) first.")
        bank.save(path, checkpoint=self.engine.name, sha256=self.engine.sha256)

    def load_supports(self, path: str | os.PathLike[str]) -> tuple[Support, ...]:
        """Add the supports of a file that this checkpoint wrote; those already here are not added twice.

        Returns:
            The file's supports.

        Raises:
            SupportError: not such a file, damaged, or made with another checkpoint.
        """
        loaded = read_supports(path, checkpoint=self.engine.name, sha256=self.engine.sha256)
        blank = np.zeros((64, 64, 3), np.uint8)
        expected = self.engine.encode(blank, np.eye(64, dtype=np.bool_))
        for support in loaded:
            support.state.check_like(expected, f"{os.fspath(path)!r}, support {support.id}")
        self._add(*loaded)
        return loaded

    def predict(
        self,
        query: ImageSource,
        *,
        labels: Sequence[str] | None = None,
        threshold: float = 0.5,
        absent_below: float = 0.0,
    ) -> Segmentation:
        """Segment one picture at its own size.

        Args:
            query: a path, PIL image, uint8 array ``(H, W, 3)`` or float tensor ``(3, H, W)`` in [0, 1]; RGB.
            labels: which labels, in this order; None for all.
            threshold: a pixel belongs to a mask where its probability exceeds this, in [0, 1].
            absent_below: labels with a score below this get an empty mask, in [0, 1]; 0.5 for pictures that may well
                not show the object.

        Raises:
            NoSupportError: no support was added.
            LabelError: a label has no support.
            ImageError, PictureNotFoundError: the picture cannot be used.
            ConfigError: ``threshold`` or ``absent_below`` is out of its range.
            PrecisionError: numbers overflowed in the chosen dtype.
        """
        cut = Cut(threshold, absent_below)
        names, tasks = self._tasks(labels)
        return self._segment([load_picture(query, what="query")], names, tasks, cut)[0]

    def predict_many(
        self,
        queries: Iterable[ImageSource],
        *,
        labels: Sequence[str] | None = None,
        threshold: float = 0.5,
        absent_below: float = 0.0,
        batch_size: int = 8,
    ) -> Iterator[Segmentation]:
        """Segment many pictures, in order, a batch at a time; each result is as :meth:`predict` gives it.

        The supports in use are those of the moment of the call. Raises as :meth:`predict` does, for a broken picture
        when its batch is reached, naming its position; further:

        Raises:
            ConfigError: ``batch_size`` is not an integer of at least 1.
            ImageError: ``queries`` is one picture and not a collection of them.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r} must be an integer of at least 1.")
        if isinstance(queries, (str, os.PathLike, Image.Image)) or not isinstance(queries, Iterable):
            raise ImageError(f"queries={queries!r} is not a collection of pictures; for one picture call predict.")
        cut = Cut(threshold, absent_below)
        names, tasks = self._tasks(labels)
        return self._batches(iter(queries), names, tasks, cut, batch_size)

    def _batches(
        self,
        queries: Iterator[ImageSource],
        names: tuple[str, ...],
        tasks: list[TaskGroup],
        cut: Cut,
        batch_size: int,
    ) -> Iterator[Segmentation]:
        position = 0
        while batch := list(islice(queries, batch_size)):
            pictures = [load_picture(q, what=f"query {position + i}") for i, q in enumerate(batch)]
            position += len(batch)
            yield from self._segment(pictures, names, tasks, cut)

    def _tasks(self, labels: Sequence[str] | None) -> tuple[tuple[str, ...], list[TaskGroup]]:
        held = self._held
        if isinstance(labels, str) or not isinstance(labels, Iterable | None):
            raise LabelError(f"labels={labels!r} is no list; pass one, as in labels=[{labels!r}].")
        if not len(held.bank):
            raise NoSupportError("no support was added; call add_support(image, mask) first.")
        names = held.bank.labels if labels is None else tuple(labels)
        if not names or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names):
            raise LabelError(f"labels={list(names)} must name at least one label by its string, and none twice.")
        if names == held.bank.labels:
            return names, held.groups
        for name in names:
            held.bank.of_label(name)
        return names, self.engine.prepare([held.tasks[name] for name in names])

    def _segment(
        self, pictures: list[Picture], names: tuple[str, ...], tasks: list[TaskGroup], cut: Cut
    ) -> list[Segmentation]:
        found, timings = self.engine.segment([p.pixels for p in pictures], tasks)
        if not all(np.isfinite(f.leads).all() for f in found):
            raise PrecisionError(f"the network overflowed in {self.engine.precision}; use dtype=None or 'bfloat16'.")
        if cut.absent_below and any(f.scores is None for f in found):
            raise ConfigError(
                f"absent_below={cut.absent_below}: {self.engine.name!r} is not calibrated: iir-sdk calibrate."
            )
        return [
            segmentation(names, f, image=p.pixels, cut=cut, timings=timings)
            for p, f in zip(pictures, found, strict=True)
        ]
