"""The network in ONNX Runtime; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        """See :class:`iir_sdk.engine.Engine`; backbone and decoder are one graph, and one stage."""
        clock, found = LapClock(), []
        for pixels in pictures:
            logits, priors = self._run(pixels, tasks)
            size = (pixels.shape[0], pixels.shape[1])
            lead = logits[:, 1] - logits[:, 0]
            probabilities = [1 / (1 + np.exp(-resized_map(own, size))) for own in lead]
            found.append(Segmented(np.stack(probabilities), np.stack([resized_map(p[0], size) for p in priors])))
        clock.lap("all")
        return found, clock.laps

    def _run(
        self, pixels: NDArray[np.uint8], tasks: Sequence[TaskGroup]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        image = np.ascontiguousarray(self.preprocessing.image(pixels))[None]
        outcomes = [self._predictor.run(["logits", "prior"], {"image": image, **task.state}) for task in tasks]
        order = np.argsort([c for task in tasks for c in task.columns])
        logits, priors = (np.concatenate([o[i] for o in outcomes])[order] for i in range(2))
        return logits, priors


def _session(path: Any) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "backend='onnxruntime' needs ONNX Runtime. Install it: pip install 'iir-sdk[onnx]'"
        ) from error
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise WeightsError(f"ONNX Runtime {onnxruntime.__version__} cannot run {path}: {error}") from error
