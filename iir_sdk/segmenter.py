"""The SDK's main class: add a support, predict on any picture."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.devices import pick_device
from iir_sdk.errors import ConfigError, ImageError, LabelError, NoSupportError, PrecisionError
from iir_sdk.images import ImageSource, Picture, load_mask, load_picture
from iir_sdk.lap_clock import LapClock
from iir_sdk.model.backbone import Taps
from iir_sdk.model.iir import IIR
from iir_sdk.model.state import SupportState, join_tasks
from iir_sdk.preprocessing import restore
from iir_sdk.result import Segmentation, from_probabilities
from iir_sdk.support import Support, SupportBank, read_supports
from iir_sdk.weights.checkpoint_file import Checkpoint
from iir_sdk.weights.entry import WeightsEntry
from iir_sdk.weights.hub import HubOptions
from iir_sdk.weights.resolve import load_checkpoint
from iir_sdk.weights.saving import described, publish_checkpoint, save_folder

_LARGEST_DECODE = 32
"""Most (query, label) pairs decoded at once; bounds memory, not results."""


class FewShotSegmenter:
    """Segments whatever its supports show, in any picture, without training.

    A support is encoded once, when it is added; ``predict`` runs on the kept encodings and writes nothing on the
    object, so several threads may predict at once.

    Args:
        weights: a checkpoint's name, ``.safetensors`` file, folder or ``owner/name`` on the Hub, or a loaded
            :class:`Checkpoint`; None is the embedded default.
        device: ``auto`` (CUDA, else MPS, else CPU) or a torch device.
        dtype: None for float32, or ``torch.bfloat16`` / ``torch.float16`` for autocast.

    Raises:
        WeightsNotFoundError, IntegrityError, WeightsError, HubError: the checkpoint cannot be had or trusted.
        DeviceError: the device is not there.
        ConfigError: the dtype does not fit.

    Example:
        >>> segmenter = FewShotSegmenter()
        >>> segmenter.add_support("cat.jpg", "cat_mask.png", label="cat")
        >>> segmenter.predict("street.jpg").mask
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | Checkpoint | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.device = pick_device(device)
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise ConfigError(f"dtype={dtype} must be None, torch.float32, torch.bfloat16 or torch.float16.")
        self.dtype: torch.dtype = dtype or torch.float32
        self.checkpoint = weights if isinstance(weights, Checkpoint) else load_checkpoint(weights)
        self.model: IIR = self.checkpoint.model.to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.preprocessing = self.checkpoint.preprocessing
        self._bank = SupportBank()
        self._adding = threading.Lock()

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
        dtype: torch.dtype | None = None,
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
            device: see the class; likewise ``dtype``.

        Raises:
            WeightsNotFoundError: it leads nowhere, or is not on the Hub yet.
            IntegrityError: size, sha256, tensors or values are not the expected ones, even after a fresh download.
            WeightsError, ConfigError: not a checkpoint of this package, or out of bounds.
            HubError, HubAccessError, OutputError: the Hub did not deliver or refuses; its cache cannot be written.
        """
        options = HubOptions(revision, cache_dir, token, local_files_only, force_download)
        return cls(load_checkpoint(name_or_path, options), device=device, dtype=dtype)

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
        entry = described(self.checkpoint.entry, name, description, license, training_data)
        checkpoint = replace(self.checkpoint, entry=entry, model=self.model)
        return publish_checkpoint(checkpoint, repo_id, token=token, private=private, message=commit_message)

    @property
    def supports(self) -> SupportBank:
        """All supports, an immutable collection."""
        return self._bank

    def autocast(self) -> AbstractContextManager[object]:
        """The context its model runs in: autocast to ``dtype``, or nothing for float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

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
        state = self.encode(picture.pixels, load_mask(mask, picture))
        support = Support(label, state, picture.size)
        self._add(support)
        return support

    @torch.inference_mode()
    def encode(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> SupportState:
        """What :meth:`add_support` keeps of a checked picture ``(H, W, 3)`` and mask ``(H, W)``, in float16."""
        image, share = self.preprocessing.support(pixels, mask)
        images = self.preprocessing.normalise(image[None].to(self.device))
        with self.autocast():
            state = self.model.encode_support(images[None], share[None, None].to(self.device))
        # Halves the memory; the difference is far below what bfloat16 makes of the same numbers.
        return state.to(self.device, torch.float16)

    def _add(self, *supports: Support) -> None:
        with self._adding:
            self._bank = self._bank.adding(*supports)

    def remove_support(self, which: Support | str) -> None:
        """Forget one support, or all supports of a label.

        Raises:
            LabelError: nothing fits.
        """
        with self._adding:
            self._bank = self._bank.removing(which)

    def clear_supports(self) -> None:
        """Forget all supports."""
        with self._adding:
            self._bank = SupportBank()

    def save_supports(self, path: str | os.PathLike[str]) -> None:
        """Write all supports to one safetensors file, bound to this checkpoint.

        Raises:
            OutputError: it cannot be written.
            NoSupportError: there is none.
        """
        if not len(self._bank):
            raise NoSupportError("there are no supports to save; call add_support(image, mask) first.")
        self._bank.save(path, checkpoint=self.checkpoint.name, sha256=self.checkpoint.sha256)

    def load_supports(self, path: str | os.PathLike[str]) -> tuple[Support, ...]:
        """Add the supports of a file that this checkpoint wrote; those already here are not added twice.

        Returns:
            The file's supports.

        Raises:
            SupportError: not such a file, damaged, or made with another checkpoint.
        """
        loaded = read_supports(path, checkpoint=self.checkpoint.name, sha256=self.checkpoint.sha256)
        blank = np.zeros((64, 64, 3), np.uint8)
        expected = self.encode(blank, np.eye(64, dtype=np.bool_))
        for support in loaded:
            support.state.check_like(expected, f"{os.fspath(path)!r}, support {support.id}")
        placed = tuple(replace(s, state=s.state.to(self.device)) for s in loaded)
        self._add(*placed)
        return placed

    def predict(
        self, query: ImageSource, *, labels: Sequence[str] | None = None, threshold: float = 0.5
    ) -> Segmentation:
        """Segment one picture at its own size.

        Args:
            query: a path, PIL image, uint8 array ``(H, W, 3)`` or float tensor ``(3, H, W)`` in [0, 1]; RGB.
            labels: which labels, in this order; None for all.
            threshold: a pixel belongs to a mask where its probability exceeds this, in [0, 1].

        Raises:
            NoSupportError: no support was added.
            LabelError: a label has no support.
            ImageError, PictureNotFoundError: the picture cannot be used.
            ConfigError: the threshold is out of its range.
            PrecisionError: numbers overflowed in the chosen dtype.
        """
        names, states = self._tasks(labels, threshold)
        return self._segment([load_picture(query, what="query")], names, states, threshold)[0]

    def predict_many(
        self,
        queries: Iterable[ImageSource],
        *,
        labels: Sequence[str] | None = None,
        threshold: float = 0.5,
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
        names, states = self._tasks(labels, threshold)
        return self._batches(iter(queries), names, states, threshold, batch_size)

    def _batches(
        self,
        queries: Iterator[ImageSource],
        names: tuple[str, ...],
        states: list[SupportState],
        threshold: float,
        batch_size: int,
    ) -> Iterator[Segmentation]:
        position = 0
        while batch := list(islice(queries, batch_size)):
            pictures = [load_picture(q, what=f"query {position + i}") for i, q in enumerate(batch)]
            position += len(batch)
            yield from self._segment(pictures, names, states, threshold)

    def _tasks(self, labels: Sequence[str] | None, threshold: float) -> tuple[tuple[str, ...], list[SupportState]]:
        bank = self._bank
        if not isinstance(threshold, (int, float, np.floating)) or not 0 <= threshold <= 1:
            raise ConfigError(f"threshold={threshold!r} must be a number in [0, 1].")
        if isinstance(labels, str):
            raise LabelError(f"labels={labels!r} is one string; pass a list, as in labels=[{labels!r}].")
        if not len(bank):
            raise NoSupportError("no support was added; call add_support(image, mask) first.")
        names = bank.labels if labels is None else tuple(labels)
        if not names or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names):
            raise LabelError(f"labels={list(names)} must name at least one label by its string, and none twice.")
        return names, [bank.state_of(name) for name in names]

    @torch.inference_mode()
    def _segment(
        self, pictures: list[Picture], names: tuple[str, ...], states: list[SupportState], threshold: float
    ) -> list[Segmentation]:
        clock = LapClock(self.device)
        images = self._images([p.pixels for p in pictures])
        clock.lap("preprocess")
        with self.autocast():
            taps = self._features(images)
            clock.lap("backbone")
            logits, priors = self._decode(taps, states)
        clock.lap("decode")
        own_size = [
            (restore(logits[i], p.size), F.interpolate(priors[i], p.size, mode="bilinear", align_corners=False)[:, 0])
            for i, p in enumerate(pictures)
        ]
        arrays = [(_numpy(probability), _numpy(prior)) for probability, prior in own_size]
        clock.lap("restore")
        if not all(np.isfinite(probability).all() for probability, _ in arrays):
            raise PrecisionError(f"the network overflowed in {self.dtype}; use dtype=None or torch.bfloat16.")
        return [
            from_probabilities(names, probability, prior, image=picture.pixels, threshold=threshold, timings=clock.laps)
            for picture, (probability, prior) in zip(pictures, arrays, strict=True)
        ]

    def _decode(self, taps: Taps, states: list[SupportState]) -> tuple[Tensor, Tensor]:
        """Logits ``(B, L, 2, h, w)`` and priors ``(B, L, 1, h', w')`` of every query and label."""
        queries = len(taps.mid)
        logits: list[Tensor | None] = [None] * (queries * len(states))
        priors = list(logits)
        for shots in sorted({s.shots for s in states}):
            columns = [i for i, s in enumerate(states) if s.shots == shots]
            pairs = [(q, c) for q in range(queries) for c in columns]
            for start in range(0, len(pairs), _LARGEST_DECODE):
                chunk = pairs[start : start + _LARGEST_DECODE]
                rows = torch.tensor([q for q, _ in chunk], device=self.device)
                state = join_tasks([states[c] for _, c in chunk])
                found = self.model.decode(Taps(*(t.index_select(0, rows) for t in taps)), state)
                for i, (q, c) in enumerate(chunk):
                    logits[q * len(states) + c] = found.logits[i]
                    priors[q * len(states) + c] = found.prior[i]
        return _grouped(logits, queries), _grouped(priors, queries)

    @torch.inference_mode()
    def taps(self, pictures: Sequence[NDArray[np.uint8]], size: int | None = None) -> Taps:
        """The backbone's features of pictures ``(H, W, 3)``, at the checkpoint's input size or another."""
        with self.autocast():
            return self._features(self._images(pictures, size))

    def _features(self, images: Tensor) -> Taps:
        """The backbone's taps; on a CPU picture by picture: a batch's maps leave the cache and take twice as long."""
        if self.device.type != "cpu" or len(images) == 1:
            taps: Taps = self.model.backbone(images)
            return taps
        singly = [self.model.backbone(image[None]) for image in images]
        return Taps(*(torch.cat(maps) for maps in zip(*singly, strict=True)))

    def _images(self, pictures: Sequence[NDArray[np.uint8]], size: int | None = None) -> Tensor:
        images = torch.stack([self.preprocessing.image(p, size) for p in pictures]).to(self.device)
        return self.preprocessing.normalise(images).contiguous(memory_format=torch.channels_last)


def _grouped(maps: list[Tensor | None], queries: int) -> Tensor:
    """``queries * L`` maps, all filled in, as ``(queries, L, ...)``."""
    stacked = torch.stack([t for t in maps if t is not None])
    return stacked.reshape(queries, -1, *stacked.shape[1:])


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
