"""The network in ONNX Runtime; imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engine import Segmented, TaskGroup, grouped
from iir_sdk.errors import MissingDependencyError, WeightsError
from iir_sdk.kept_state import KeptState, join_tasks
from iir_sdk.lap_clock import LapClock
from iir_sdk.onnx.folder import ENCODER, PREDICTOR, OnnxExport
from iir_sdk.preprocessing import Preprocessing, resized_map


class OnnxEngine:
    """Runs an export on the CPU, in float32.

    Args:
        export: verified graphs.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        WeightsError: ONNX Runtime cannot run the graphs.
    """

    precision = "float32"

    def __init__(self, export: OnnxExport) -> None:
        self.export = export
        self._encoder = _session(export.folder / ENCODER)
        self._predictor = _session(export.folder / PREDICTOR)
        self._on_one: Any = None
        self._opening = Lock()
        self._state = [i.name for i in self._predictor.get_inputs() if i.name != "image"]

    @property
    def name(self) -> str:
        """Of the checkpoint."""
        return self.export.entry.name

    @property
    def sha256(self) -> str:
        """Of the checkpoint."""
        return self.export.entry.sha256

    @property
    def preprocessing(self) -> Preprocessing:
        """The checkpoint's."""
        return self.export.preprocessing

    def encode(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> KeptState:
        """See :class:`iir_sdk.engine.Engine`; floats are kept in float16."""
        image, share = self.preprocessing.support(pixels, mask)
        names = [o.name for o in self._encoder.get_outputs()]
        inputs = {"image": np.ascontiguousarray(image)[None], "mask": share[None, None]}
        found = dict(zip(names, self._encoder.run(names, inputs), strict=True))
        kept = {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in found.items()}
        return KeptState(kept).with_mass()

    def prepare(self, states: Sequence[KeptState]) -> list[TaskGroup]:
        """See :class:`iir_sdk.engine.Engine`."""
        groups = []
        for columns in grouped(states):
            arrays = join_tasks([states[c] for c in columns]).arrays
            groups.append(TaskGroup(columns, {n: arrays[n].astype(np.float32) for n in self._state}))
        return groups

    def segment(
        self, pictures: Sequence[NDArray[np.uint8]], tasks: Sequence[TaskGroup]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """See :class:`iir_sdk.engine.Engine`; backbone and decoder are one graph, and one stage.

        One picture takes all processors; of several, each takes one, so that none waits for another's small steps.
        """
        clock = LapClock()
        if len(pictures) == 1:
            found = [self._segmented(self._predictor, pictures[0], tasks)]
        else:
            predictor = self._predictor_on_one()
            with ThreadPoolExecutor(min(len(pictures), _processors())) as pool:
                found = list(pool.map(lambda pixels: self._segmented(predictor, pixels, tasks), pictures))
        clock.lap("all")
        return found, clock.laps

    def _predictor_on_one(self) -> Any:
        """The predictor's session on one processor, opened when first needed."""
        with self._opening:
            if self._on_one is None:
                self._on_one = _session(self.export.folder / PREDICTOR, threads=1)
            return self._on_one

    def _segmented(self, predictor: Any, pixels: NDArray[np.uint8], tasks: Sequence[TaskGroup]) -> Segmented:
        image = np.ascontiguousarray(self.preprocessing.image(pixels))[None]
        outcomes = [predictor.run(["logits", "prior"], {"image": image, **task.state}) for task in tasks]
        order = np.argsort([c for task in tasks for c in task.columns])
        logits, priors = (np.concatenate([o[i] for o in outcomes])[order] for i in range(2))
        size = (pixels.shape[0], pixels.shape[1])
        lead = logits[:, 1] - logits[:, 0]
        return Segmented(np.stack([_sigmoid(resized_map(own, size)) for own in lead]), priors[:, 0])


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """In place: the picture is large, and every copy of it costs as much as the arithmetic."""
    np.negative(values, out=values)
    with np.errstate(over="ignore"):
        np.exp(values, out=values)
    np.add(values, 1, out=values)
    return np.reciprocal(values, out=values)


def _processors() -> int:
    """How many this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _session(path: Path, threads: int = 0) -> Any:
    """A graph on so many threads; 0 leaves their number to ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "backend='onnxruntime' needs ONNX Runtime. Install it: pip install 'iir-sdk[onnx]'"
        ) from error
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise WeightsError(f"ONNX Runtime {onnxruntime.__version__} cannot run {path}: {error}") from error
