"""The network in PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iir_sdk.engines.base import TaskGroup, grouped
from iir_sdk.engines.devices import computes_in_bfloat16, pick_device
from iir_sdk.engines.lap_clock import LapClock
from iir_sdk.errors import ConfigError, IirWarning
from iir_sdk.model.backbone import Taps, taps_of
from iir_sdk.model.encodings import QueryFeatures, SupportState
from iir_sdk.model.folding import with_folded_norms
from iir_sdk.model.iir import IIR, Prediction
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.process import computing_with, keep_forks_alive
from iir_sdk.results.full_size import Segmented
from iir_sdk.supports.encoded import EncodedSupport, join_tasks
from iir_sdk.weights.checkpoint_file import Checkpoint
from iir_sdk.weights.pickling import PackedWeights, packed

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_FEW = 8

Precision: TypeAlias = "torch.dtype | str | None"
Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


class Decoded(NamedTuple):
    """What the decoder says of ``B`` queries and ``L`` labels.

    Attributes:
        logits: ``(B, L, 2, h, w)``, background and foreground.
        prior: ``(B, L, 1, h', w')`` in [0, 1].
        scores: ``(B, L, 2)`` logits of presence and confidence; None without a head for them.
    """

    logits: Tensor
    prior: Tensor
    scores: Tensor | None

    @classmethod
    def joined(cls, parts: Sequence[Prediction | Decoded], join: Callable[[list[Tensor]], Tensor]) -> Decoded:
        """Several by ``join``, field by field."""
        scores = [p.scores for p in parts if p.scores is not None]
        return cls(join([p.logits for p in parts]), join([p.prior for p in parts]), join(scores) if scores else None)


def _inferring(
    method: Callable[Concatenate[TorchEngine, Arguments], Outcome],
) -> Callable[Concatenate[TorchEngine, Arguments], Outcome]:
    """Without gradients, with the engine's threads, by a network that is as it was opened."""

    @wraps(method)
    def inferring(engine: TorchEngine, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Outcome:
        _check_unchanged(engine)
        with torch.inference_mode(), computing_with(engine.threads):
            return method(engine, *args, **kwargs)

    return inferring


class TorchEngine:
    """Runs a checkpoint's network on a torch device.

    Args:
        checkpoint: verified weights.
        device: ``auto`` (CUDA, else MPS, else CPU) or a torch device.
        dtype: see :class:`iir_sdk.FewShotSegmenter`.
        threads: how many to compute with; None for torch's own number.
        opened_again: what a pickle calls, with the packed weights and the arguments above.

    Raises:
        DeviceError: the device is not there.
        ConfigError: the dtype does not fit.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "auto",
        dtype: Precision = None,
        threads: int | None = None,
        opened_again: Callable[[PackedWeights, dict[str, Any]], TorchEngine] | None = None,
    ) -> None:
        self._opened_again = opened_again or _opened_again
        self._opened_with = {"device": device, "dtype": dtype, "threads": threads}
        self.device = pick_device(device)
        self.dtype = _picked_dtype(dtype, self.device)
        self.checkpoint, self.threads = checkpoint, threads
        self.model = _on_device(checkpoint.model, self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        keep_forks_alive()
        # What runs; the model itself stays as it was loaded, which is what is saved.
        with computing_with(threads):
            self.network = with_folded_norms(self.model)
        # Listed once: to walk through the network at every prediction takes longer than some of its steps.
        self.parts = tuple(self.network.modules())
        if self.device.type == "cpu":
            _keep_freed_memory()

    def __reduce__(self) -> tuple[Callable[..., TorchEngine], tuple[PackedWeights, dict[str, Any]]]:
        """For copies and pickles: opened again as it was asked for, so that ``auto`` picks what the new place has."""
        return self._opened_again, (packed(replace(self.checkpoint, model=self.model)), self._opened_with)

    @property
    def name(self) -> str:
        """Of the checkpoint."""
        return self.checkpoint.name

    @property
    def sha256(self) -> str:
        """Of the checkpoint."""
        return self.checkpoint.sha256

    @property
    def preprocessing(self) -> Preprocessing:
        """The checkpoint's."""
        return self.checkpoint.preprocessing

    def in_float32(self) -> TorchEngine:
        """The same network without autocast; nothing of it is copied."""
        plain = object.__new__(TorchEngine)
        vars(plain).update(vars(self), dtype=torch.float32)
        return plain

    @property
    def precision(self) -> str:
        """``float32``, or what autocast lowers to."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def backend(self) -> str:
        """``torch``."""
        return "torch"

    @property
    def place(self) -> str:
        """The torch device."""
        return str(self.device)

    @property
    def calibrated(self) -> bool:
        """Whether the network has a head for the scores."""
        return self.model.decoder.scores is not None

    def autocast(self) -> AbstractContextManager[object]:
        """The context the model runs in: autocast to ``dtype``, or nothing for float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @_inferring
    def encode(
        self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], known: NDArray[np.bool_] | None = None
    ) -> EncodedSupport:
        """See :class:`iir_sdk.engines.base.Engine`; floats are kept in float16."""
        support = self.preprocessing.support(pixels, mask, known)
        with self.autocast():
            state = self.network.encode_support(*(torch.from_numpy(a).to(self.device)[None, None] for a in support))
        # Halves the memory; the difference is far below what bfloat16 makes of the same numbers.
        halved = state.to("cpu", torch.float16).arrays()
        return EncodedSupport.from_arrays({name: tensor.numpy() for name, tensor in halved.items()}).with_mass()

    @_inferring
    def prepare(self, states: Sequence[EncodedSupport]) -> list[TaskGroup]:
        """See :class:`iir_sdk.engines.base.Engine`; floats become float32 again."""
        groups = []
        for columns in grouped(states):
            arrays = join_tasks([states[c] for c in columns]).arrays()
            state = SupportState.from_arrays({n: torch.from_numpy(a) for n, a in arrays.items()})
            groups.append(TaskGroup(columns, state.to(self.device, torch.float32)))
        return groups

    @_inferring
    def segment(
        self, pictures: Sequence[NDArray[np.uint8]], tasks: Sequence[TaskGroup]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """See :class:`iir_sdk.engines.base.Engine`."""
        clock = LapClock(partial(torch.cuda.synchronize, self.device) if self.device.type == "cuda" else None)
        images = self._images(pictures)
        clock.lap("preprocess")
        with self.autocast():
            taps = taps_of(self.network.backbone, images)
            clock.lap("backbone")
        found = self.segment_taps(taps, tasks)
        clock.lap("decode")
        return found, clock.laps

    @torch.inference_mode()
    def segment_taps(self, taps: Taps, tasks: Sequence[TaskGroup]) -> list[Segmented]:
        """As :meth:`segment`, of pictures whose features are known."""
        with self.autocast():
            decoded = self.decode(taps, tasks)
        scores = [None] * len(taps.mid) if decoded.scores is None else _numpy(decoded.scores.sigmoid())
        return [
            Segmented(leads_of(logits), _numpy(prior[:, 0]), both)
            for logits, prior, both in zip(decoded.logits, decoded.prior, scores, strict=True)
        ]

    @_inferring
    def taps(self, pictures: Sequence[NDArray[np.uint8]]) -> Taps:
        """The backbone's features of pictures ``(H, W, 3)``."""
        with self.autocast():
            return taps_of(self.network.backbone, self._images(pictures))

    def decode(self, taps: Taps, tasks: Sequence[TaskGroup]) -> Decoded:
        """Of every query and label."""
        if sum(len(t.columns) for t in tasks) == 1:
            found = [self.network.decode(few, tasks[0].state) for few in self._few_at_once(taps)]
            return Decoded.joined(found, lambda parts: torch.cat(parts)[:, None])
        query = self.network.read_query(taps)
        each = [self._decode_labels(query.one(i), tasks) for i in range(len(taps.mid))]
        return Decoded.joined(each, torch.stack)

    def _few_at_once(self, taps: Taps) -> list[Taps]:
        """Taps of a few queries each: on a CPU the maps of more leave the cache."""
        count = _FEW if self.device.type == "cpu" else len(taps.mid)
        return [Taps(*maps) for maps in zip(*(tap.split(count) for tap in taps), strict=True)]

    def _decode_labels(self, query: QueryFeatures, tasks: Sequence[TaskGroup]) -> Decoded:
        outcomes = [self.network.decode(query, task.state) for task in tasks]
        order = torch.tensor([c for task in tasks for c in task.columns], device=self.device).argsort()
        return Decoded.joined(outcomes, lambda parts: torch.cat(parts)[order])

    def _images(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        images = [torch.from_numpy(self.preprocessing.image(p))[None] for p in pictures]
        # Concatenated and not stacked, since that keeps their layout: channels last.
        joined = images[0] if len(images) == 1 else torch.cat(images)
        return joined.to(self.device).contiguous(memory_format=torch.channels_last)


def _opened_again(weights: PackedWeights, opened_with: dict[str, Any]) -> TorchEngine:
    return TorchEngine(weights.unpacked(), **opened_with)


def leads_of(logits: Tensor) -> NDArray[np.float32]:
    """Logits ``(N, 2, h, w)`` of background and foreground -> float32 ``(N, h, w)``, by how much the second leads."""
    return _numpy(logits[:, 1] - logits[:, 0])


def _check_unchanged(engine: TorchEngine) -> None:
    """Refuse a network that its owner has put into training mode, whose dropout spoils masks, or into other numbers.

    Raises:
        ConfigError: naming what was changed and what changes it back.
    """
    if any(part.training for part in engine.parts):
        raise ConfigError("the network is in training mode, whose dropout spoils masks: call segmenter.model.eval().")
    numbers = next(engine.network.decoder.parameters()).dtype
    if numbers != torch.float32:
        raise ConfigError(
            f"the network's weights are {numbers} now; they stay torch.float32: call segmenter.model.float(), and open "
            "a segmenter with dtype= for another precision."
        )


def _on_device(model: IIR, device: torch.device) -> IIR:
    """The model, or a copy where it is on another device: another engine may run it there."""
    here = next(model.parameters()).device
    return model if here == device else copy.deepcopy(model).to(device)


def _keep_freed_memory() -> None:
    """Have the C library (glibc) reuse a prediction's memory for the next one.

    It gives blocks above a threshold back to the system, and raises that threshold, up to 32 MB, when such a block is
    freed. Without this, a prediction asks for every page of its maps anew, which took a fifth of its time. It holds for
    the whole process, which keeps up to 64 MB more; where another allocator is at work, nothing changes.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


def _picked_dtype(dtype: Precision, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype or torch.float32
    if chosen not in _DTYPES.values():
        names = ", ".join(repr(name) for name in _DTYPES)
        raise ConfigError(f"dtype={dtype!r} must be None, 'auto', {names}, or torch's own of these.")
    assert chosen is not None
    if chosen == torch.bfloat16 and device.type == "cpu" and not computes_in_bfloat16(device):
        warnings.warn(
            "this CPU has no bfloat16 instructions (AVX-512 BF16 or AMX): torch emulates them, many times slower than "
            "float32. dtype='auto' picks bfloat16 only where it is fast.",
            IirWarning,
            stacklevel=6,
        )
    return chosen


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
