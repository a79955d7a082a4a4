"""The network in PyTorch."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.engines.agreement import agreement, compared_leads, digest, disagreement
from iir_sdk.engines.base import Arrays, Engine, EngineIdentity, TaskGroup, in_order, rows_by_tasks
from iir_sdk.engines.devices import Precision, pick_device, pick_dtype
from iir_sdk.engines.folding import with_folded_norms
from iir_sdk.errors import ConfigError, IirWarning, PrecisionError
from iir_sdk.model.backbone import Taps, taps_of
from iir_sdk.model.encodings import QueryFeatures, SupportState
from iir_sdk.model.iir import IIR, Prediction
from iir_sdk.model.support_state import Tokens
from iir_sdk.pictures.preprocess import SupportInput
from iir_sdk.process import computing_with, keep_forks_alive
from iir_sdk.results.full_size import Segmented
from iir_sdk.weights.checkpoint_file import Checkpoint
from iir_sdk.weights.saving import EmbeddedWeights, PackedWeights, packed

_FEW = 8
_LOOKS = 20
"""Cells of a side of what places look like."""

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


def _inferring(
    method: Callable[Concatenate[TorchEngine, Arguments], Outcome],
) -> Callable[Concatenate[TorchEngine, Arguments], Outcome]:
    """Without gradients, with the engine's precision and threads, by a network that is as it was opened."""

    @wraps(method)
    def inferring(engine: TorchEngine, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Outcome:
        _check_unchanged(engine)
        with torch.inference_mode(), computing_with(engine.threads), engine.autocast():
            return method(engine, *args, **kwargs)

    return inferring


class TorchEngine(Engine):
    """Runs a checkpoint's network on a torch device.

    ``device``, ``dtype`` and ``threads`` as of :class:`iir_sdk.FewShotSegmenter`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "auto",
        dtype: Precision = None,
        threads: int | None = None,
    ) -> None:
        self._opened_with = {"device": device, "dtype": dtype, "threads": threads}
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        self.checkpoint, self.threads = checkpoint, threads
        self.model = _on_device(checkpoint.model, self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.identity = EngineIdentity(
            checkpoint.name,
            checkpoint.sha256,
            checkpoint.preprocessing,
            precision=str(self.dtype).removeprefix("torch."),
            backend="torch",
            place=str(self.device),
            calibrated=self.model.decoder.scores is not None,
        )
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
        return _opened_again, (packed(replace(self.checkpoint, model=self.model)), self._opened_with)

    def in_float32(self) -> TorchEngine:
        """The same network without autocast; nothing of it is copied."""
        plain = object.__new__(TorchEngine)
        identity = replace(self.identity, precision="float32")
        vars(plain).update(vars(self), dtype=torch.float32, identity=identity)
        return plain

    def autocast(self) -> AbstractContextManager[object]:
        """The context the model runs in: autocast to ``dtype``, or nothing for float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @_inferring
    def _encoded(self, support: SupportInput) -> Arrays:
        state = self.network.encode_support(*(torch.from_numpy(a).to(self.device)[None, None] for a in support))
        return {name: tensor.numpy() for name, tensor in state.to("cpu", torch.float32).arrays().items()}

    @_inferring
    def _encoded_counterexample(self, image: NDArray[np.float32], known: NDArray[np.float32]) -> Tokens[NDArray[Any]]:
        inputs = (torch.from_numpy(array).to(self.device)[None] for array in (image, known))
        return Tokens(*(_numpy(tensor) for _, tensor in self.network.encode_counterexample(*inputs).parts()))

    @_inferring
    def _loaded(self, arrays: Arrays) -> SupportState:
        state = SupportState.from_arrays({name: torch.from_numpy(array) for name, array in arrays.items()})
        return state.to(self.device, torch.float32)

    @_inferring
    def segment(
        self, pictures: Sequence[NDArray[np.uint8]], tasks: Sequence[TaskGroup]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """See :class:`iir_sdk.engines.base.Engine`."""
        return self._segmented_rows(pictures, [(range(len(pictures)), tasks)])

    @_inferring
    def segment_each(
        self, pictures: Sequence[NDArray[np.uint8]], tasks_of_each: Sequence[Sequence[TaskGroup]]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """See :class:`iir_sdk.engines.base.Engine`; the backbone sees all pictures at once, whatever their tasks."""
        return self._segmented_rows(pictures, [(rows, tasks_of_each[rows[0]]) for rows in rows_by_tasks(tasks_of_each)])

    def _segmented_rows(
        self, pictures: Sequence[NDArray[np.uint8]], tasks_of_rows: Sequence[tuple[Sequence[int], Sequence[TaskGroup]]]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        clock = _LapClock(partial(torch.cuda.synchronize, self.device) if self.device.type == "cuda" else None)
        images = self._images(pictures)
        clock.lap("preprocess")
        taps = taps_of(self.network.backbone, images)
        clock.lap("backbone")
        segmented: dict[int, Segmented] = {}
        for rows, tasks in tasks_of_rows:
            segmented.update(zip(rows, self._decoded(_rows(taps, rows), tasks), strict=True))
        clock.lap("decode")
        return [segmented[row] for row in range(len(pictures))], clock.laps

    @_inferring
    def segment_with_looks(
        self, picture: NDArray[np.uint8], tasks: Sequence[TaskGroup]
    ) -> tuple[Segmented, NDArray[np.float32] | None, Mapping[str, float]]:
        """See :class:`iir_sdk.engines.base.Engine`."""
        start = time.perf_counter()
        taps = taps_of(self.network.backbone, self._images([picture]))
        (segmented,) = self._decoded(taps, tasks)
        return segmented, _numpy(_looks(taps)), {"all": (time.perf_counter() - start) * 1000}

    @_inferring
    def read(self, picture: NDArray[np.uint8]) -> QueryFeatures:
        """All of a picture ``(H, W, 3)`` that no support changes."""
        return self.network.read_query(taps_of(self.network.backbone, self._images([picture])))

    @_inferring
    def looks(self, features: QueryFeatures, side: int) -> NDArray[np.float32]:
        """See :class:`iir_sdk.engines.base.Engine`; of what :meth:`read` gave, the ``mid`` map."""
        maps = features.mid.map.float()
        cells = F.interpolate(maps - maps.mean((2, 3), keepdim=True), (side, side), mode="bilinear", antialias=True)
        return _numpy(F.normalize(cells, dim=1)[0])

    @_inferring
    def segment_read(self, query: QueryFeatures, tasks: Sequence[TaskGroup]) -> Segmented:
        """As :meth:`segment`, of one picture that was read."""
        return self._by_all(query, tasks)

    @_inferring
    def segment_with_evidence(self, query: QueryFeatures, task: TaskGroup) -> tuple[Segmented, Tensor]:
        """A picture that was read, by one label, and what speaks for its mask: ``(10,)`` of :meth:`IIR.evidence`."""
        prediction = self.network.decode(query, task.state)
        evidence = self.network.evidence(query, task.state, prediction.shot_weights, prediction.logits)
        return _segmented(prediction), evidence[0].float().cpu()

    def _decoded(self, taps: Taps, tasks: Sequence[TaskGroup]) -> list[Segmented]:
        if sum(len(t.columns) for t in tasks) == 1:
            few = [_segmented(self.network.decode(few, tasks[0].state)) for few in self._few_at_once(taps)]
            return [one for several in few for one in several.apart()]
        query = self.network.read_query(taps)
        return [self._by_all(query.one(i), tasks) for i in range(len(taps.mid))]

    def _by_all(self, query: QueryFeatures, tasks: Sequence[TaskGroup]) -> Segmented:
        return in_order([_segmented(self.network.decode(query, task.state)) for task in tasks], tasks)

    def _few_at_once(self, taps: Taps) -> list[Taps]:
        """Taps of a few queries each: on a CPU the maps of more leave the cache."""
        count = _FEW if self.device.type == "cpu" else len(taps.mid)
        return [Taps(*maps) for maps in zip(*(tap.split(count) for tap in taps), strict=True)]

    def _images(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        images = [torch.from_numpy(self.identity.preprocessing.image(p))[None] for p in pictures]
        # Concatenated and not stacked, since that keeps their layout: channels last.
        joined = images[0] if len(images) == 1 else torch.cat(images)
        return joined.to(self.device).contiguous(memory_format=torch.channels_last)


class _LapClock:
    """Milliseconds between laps; ``wait`` is called before each, on devices that run ahead of the program."""

    def __init__(self, wait: Callable[[], None] | None = None) -> None:
        self.laps: dict[str, float] = {}
        self._wait = wait
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Record the time since the last lap under ``name``."""
        if self._wait is not None:
            self._wait()
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1000
        self._last = now


def _rows(taps: Taps, rows: Sequence[int]) -> Taps:
    """Taps of some queries; concatenated, which keeps their layout, and not picked by their numbers, which does not."""
    if len(rows) == len(taps.mid):
        return taps
    return Taps(*(torch.cat([maps[row : row + 1] for row in rows]) for maps in taps))


def _looks(taps: Taps) -> Tensor:
    """``(C, 20, 20)`` of a picture's taps: how its places differ from their mean, deep and less deep ones alike."""
    parts = []
    for maps in (taps.high, taps.mid):
        cells = F.interpolate(maps.float(), (_LOOKS, _LOOKS), mode="bilinear", antialias=True)
        parts.append(F.normalize(cells - cells.mean((2, 3), keepdim=True), dim=1))
    both: Tensor = torch.cat(parts, 1)[0] / math.sqrt(len(parts))
    return both


def _segmented(prediction: Prediction) -> Segmented:
    """What the network says of a query's labels, or of several queries, at its own grid."""
    logits, scores = prediction.logits, prediction.scores
    leads, priors = _numpy(logits[:, 1] - logits[:, 0]), _numpy(prediction.prior[:, 0])
    return Segmented(leads, priors, None if scores is None else _numpy(scores.sigmoid()))


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def open_torch(
    checkpoint: Checkpoint, *, device: str | torch.device, dtype: Precision, threads: int | None, just_loaded: bool
) -> TorchEngine:
    """An engine that gives the masks of float32, to within rounding, as :class:`TorchEngine`'s; or a PrecisionError.

    Compared when first opened on a machine. Where they differ and the precision was left to choose, float32 is taken,
    with a warning. ``just_loaded`` says that nobody can have changed the weights since they were read.
    """
    engine = TorchEngine(checkpoint, device=device, dtype=dtype, threads=threads)
    if engine.dtype == torch.float32:
        return engine
    plain = engine.in_float32()
    weights = engine.identity.sha256 if just_loaded else _digest_of(engine)
    wrong = disagreement(
        _compared_by(engine, weights), lambda: agreement(compared_leads(engine), compared_leads(plain))
    )
    if wrong is None:
        return engine
    if dtype == "auto":
        warnings.warn(f"{wrong}. float32 is taken instead.", IirWarning, stacklevel=2)
        return plain
    raise PrecisionError(f"{wrong}; use dtype=None for float32.")


def _opened_again(weights: PackedWeights, opened_with: dict[str, Any]) -> TorchEngine:
    return open_torch(weights.unpacked(), **opened_with, just_loaded=isinstance(weights, EmbeddedWeights))


def _digest_of(engine: TorchEngine) -> str:
    """Of the network as it is now, which need not be that of the checkpoint's file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in engine.model.state_dict().items()}
    return digest(str(engine.model.config).encode(), save(tensors))


def _compared_by(engine: TorchEngine, weights: str) -> dict[str, str]:
    """What the comparison depends on; ``weights`` tell the network from others."""
    device = engine.device
    return {
        "backend": "torch",
        "version": torch.__version__,
        "precision": engine.identity.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "weights": weights,
        "preprocessing": str(engine.identity.preprocessing),
    }


def _check_unchanged(engine: TorchEngine) -> None:
    """Refuse a network that its owner has put into training mode, whose dropout spoils masks, or into other numbers."""
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
