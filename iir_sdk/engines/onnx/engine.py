"""The network as exported graphs, in ONNX Runtime or OpenVINO; imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.base import TaskGroup, grouped
from iir_sdk.engines.lap_clock import LapClock
from iir_sdk.engines.onnx.export_folder import ENCODER, PREDICTOR, SCORES_OUTPUT, OnnxExport
from iir_sdk.engines.onnx.forks import never_closed_in_forks
from iir_sdk.engines.onnx.runtime import Graph, GraphRuntime, processors
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.process import ProcessLock
from iir_sdk.results.full_size import Segmented, sigmoid
from iir_sdk.supports.encoded import EncodedSupport, join_tasks


class OnnxEngine:
    """Runs an export on the CPU.

    Args:
        export: verified graphs.
        runtime: what executes them.
        opened_again: what a pickle calls for it, by a name; None for pickles that carry the graphs.

    Raises:
        WeightsError: it cannot run the graphs.
    """

    def __init__(
        self, export: OnnxExport, runtime: GraphRuntime, *, opened_again: Callable[[], OnnxEngine] | None = None
    ) -> None:
        self.entry, self.runtime, self._export = export.entry, runtime, export
        self._opened_again = opened_again or partial(OnnxEngine, export, runtime)
        sides = self.preprocessing
        self._encoder = self._opened(ENCODER, sides.support_size)
        self._predictor = self._opened(PREDICTOR, sides.size)
        # Opened when several pictures come, by each process for itself: a runtime's threads do not live on in a fork.
        self._side_by_side: dict[int, Graph] = {}
        self._opening = ProcessLock()
        self._state = [name for name in self._predictor.inputs if name != "image"]

    def __reduce__(self) -> tuple[Callable[[], OnnxEngine], tuple[()]]:
        """For copies and pickles."""
        return self._opened_again, ()

    @property
    def precision(self) -> str:
        """What the runtime computes in."""
        return self.runtime.precision

    @property
    def backend(self) -> str:
        """What the runtime is called."""
        return self.runtime.name

    @property
    def place(self) -> str:
        """Always the CPU."""
        return "cpu"

    @property
    def calibrated(self) -> bool:
        """Whether the graph gives scores."""
        return SCORES_OUTPUT in self._predictor.outputs

    @property
    def name(self) -> str:
        """Of the checkpoint."""
        return self.entry.name

    @property
    def sha256(self) -> str:
        """Of the checkpoint."""
        return self.entry.sha256

    @property
    def preprocessing(self) -> Preprocessing:
        """The checkpoint's."""
        return self.entry.preprocessing

    def encode(
        self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], known: NDArray[np.bool_] | None = None
    ) -> EncodedSupport:
        """See :class:`iir_sdk.engines.base.Engine`; floats are kept in float16."""
        support = self.preprocessing.support(pixels, mask, known)
        encoder = self._encoder
        inputs = {"image": np.ascontiguousarray(support.image)[None]}
        inputs |= {"mask": support.mask[None, None], "known": support.known[None, None]}
        found = dict(zip(encoder.outputs, encoder.run(encoder.outputs, inputs), strict=True))
        kept = {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in found.items()}
        return EncodedSupport.from_arrays(kept).with_mass()

    def prepare(self, states: Sequence[EncodedSupport]) -> list[TaskGroup]:
        """See :class:`iir_sdk.engines.base.Engine`."""
        groups = []
        for columns in grouped(states):
            arrays = join_tasks([states[c] for c in columns]).arrays()
            groups.append(TaskGroup(columns, {n: arrays[n].astype(np.float32) for n in self._state}))
        return groups

    def segment(
        self, pictures: Sequence[NDArray[np.uint8]], tasks: Sequence[TaskGroup]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """See :class:`iir_sdk.engines.base.Engine`; backbone and decoder are one graph, and one stage.

        One picture takes all processors; of several, each takes one, so that none waits for another's small steps.
        """
        clock = LapClock()
        if len(pictures) == 1:
            found = [self._segmented(self._predictor, pictures[0], tasks)]
        else:
            predictor = self._predictor_side_by_side()
            with ThreadPoolExecutor(min(len(pictures), self.runtime.threads or processors())) as pool:
                found = list(pool.map(lambda pixels: self._segmented(predictor, pixels, tasks), pictures))
        clock.lap("all")
        return found, clock.laps

    def _predictor_side_by_side(self) -> Graph:
        """The predictor for several pictures at once, opened when first needed."""
        process = os.getpid()
        with self._opening:
            if process not in self._side_by_side:
                # In a fork one opened before runs in the threads that ask, side by side as well.
                here, side = self.runtime.opens_here(), self.preprocessing.size
                self._side_by_side[process] = (
                    self._opened(PREDICTOR, side, side_by_side=True) if here else self._predictor
                )
            return self._side_by_side[process]

    def _opened(self, name: str, side: int, *, side_by_side: bool = False) -> Graph:
        graph = self.runtime.open(self._export.graphs[name], name, image_side=side, side_by_side=side_by_side)
        never_closed_in_forks(graph)
        return graph

    def _segmented(self, predictor: Graph, pixels: NDArray[np.uint8], tasks: Sequence[TaskGroup]) -> Segmented:
        image = np.ascontiguousarray(self.preprocessing.image(pixels))[None]
        wanted = ["logits", "prior", *(name for name in predictor.outputs if name == SCORES_OUTPUT)]
        outcomes = [predictor.run(wanted, {"image": image, **task.state}) for task in tasks]
        order = np.argsort([c for task in tasks for c in task.columns])
        logits, priors, *scores = (np.concatenate(own)[order] for own in zip(*outcomes, strict=True))
        return Segmented(logits[:, 1] - logits[:, 0], priors[:, 0], sigmoid(scores[0]) if scores else None)
