"""The network as exported graphs, in ONNX Runtime or OpenVINO; imports no torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.base import Arrays, Engine, EngineIdentity, TaskGroup, in_order
from iir_sdk.engines.onnx.export_folder import (
    COUNTEREXAMPLE_ENCODER,
    ENCODER,
    PREDICTOR,
    SCORES_OUTPUT,
    OnnxExport,
)
from iir_sdk.engines.onnx.runtime import Graph, GraphRuntime, never_closed_in_forks, processors
from iir_sdk.model.support_state import TOKEN_AXES, Tokens
from iir_sdk.pictures.preprocess import SupportInput
from iir_sdk.process import ProcessLock
from iir_sdk.results.full_size import Segmented, sigmoid


class OnnxEngine(Engine):
    """Runs an export on the CPU; a WeightsError where the runtime cannot.

    ``opened_again`` is what a pickle calls for it, by a name; None for pickles that carry the graphs.
    """

    def __init__(
        self, export: OnnxExport, runtime: GraphRuntime, *, opened_again: Callable[[], OnnxEngine] | None = None
    ) -> None:
        self.runtime, self._export = runtime, export
        self._opened_again = opened_again or partial(OnnxEngine, export, runtime)
        entry, sides = export.entry, export.entry.preprocessing
        self._encoder = self._opened(ENCODER, sides.support_size)
        self._predictor = self._opened(PREDICTOR, sides.size)
        self.identity = EngineIdentity(
            entry.name,
            entry.sha256,
            sides,
            precision=runtime.precision,
            backend=runtime.name,
            place="cpu",
            calibrated=SCORES_OUTPUT in self._predictor.outputs,
        )
        # Opened when several pictures come, by each process for itself: a runtime's threads do not live on in a fork.
        self._side_by_side: dict[int, Graph] = {}
        # Opened with the first counterexample: most users have none.
        self._counterexample_encoder: Graph | None = None
        self._opening = ProcessLock()

    def __reduce__(self) -> tuple[Callable[[], OnnxEngine], tuple[()]]:
        """For copies and pickles."""
        return self._opened_again, ()

    def _encoded(self, support: SupportInput) -> Arrays:
        encoder = self._encoder
        inputs = {"image": np.ascontiguousarray(support.image)[None]}
        inputs |= {"mask": support.mask[None, None], "known": support.known[None, None]}
        return dict(zip(encoder.outputs, encoder.run(encoder.outputs, inputs), strict=True))

    def _encoded_counterexample(self, image: NDArray[np.float32], known: NDArray[np.float32]) -> Tokens[NDArray[Any]]:
        with self._opening:
            if self._counterexample_encoder is None:
                side = self.identity.preprocessing.support_size
                self._counterexample_encoder = self._opened(COUNTEREXAMPLE_ENCODER, side)
        inputs = {"image": np.ascontiguousarray(image)[None], "known": known[None, None]}
        return Tokens(*self._counterexample_encoder.run(tuple(TOKEN_AXES), inputs))

    def _loaded(self, arrays: Arrays) -> Arrays:
        return {name: arrays[name].astype(np.float32) for name in self._predictor.inputs if name != "image"}

    def segment(
        self, pictures: Sequence[NDArray[np.uint8]], tasks: Sequence[TaskGroup]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """See :class:`iir_sdk.engines.base.Engine`; backbone and decoder are one graph, and one stage.

        One picture takes all processors; of several, each takes one, so that none waits for another's small steps.
        """
        started = time.perf_counter()
        if len(pictures) == 1:
            segmented = [self._segmented(self._predictor, pictures[0], tasks)]
        else:
            predictor = self._predictor_side_by_side()
            with ThreadPoolExecutor(min(len(pictures), self.runtime.threads or processors())) as pool:
                segmented = list(pool.map(lambda pixels: self._segmented(predictor, pixels, tasks), pictures))
        return segmented, {"all": (time.perf_counter() - started) * 1000}

    def _predictor_side_by_side(self) -> Graph:
        """The predictor for several pictures at once, opened when first needed."""
        process = os.getpid()
        with self._opening:
            if process not in self._side_by_side:
                # In a fork one opened before runs in the threads that ask, side by side as well.
                here, side = self.runtime.opens_here(), self.identity.preprocessing.size
                self._side_by_side[process] = (
                    self._opened(PREDICTOR, side, side_by_side=True) if here else self._predictor
                )
            return self._side_by_side[process]

    def _opened(self, name: str, side: int, *, side_by_side: bool = False) -> Graph:
        graph = self.runtime.open(self._export.graphs[name], name, image_side=side, side_by_side=side_by_side)
        never_closed_in_forks(graph)
        return graph

    def _segmented(self, predictor: Graph, pixels: NDArray[np.uint8], tasks: Sequence[TaskGroup]) -> Segmented:
        image = np.ascontiguousarray(self.identity.preprocessing.image(pixels))[None]
        wanted = ["logits", "prior", *([SCORES_OUTPUT] if self.identity.calibrated else [])]
        outcomes = []
        for task in tasks:
            logits, priors, *scores = predictor.run(wanted, {"image": image, **task.state})
            leads = logits[:, 1] - logits[:, 0]
            outcomes.append(Segmented(leads, priors[:, 0], sigmoid(scores[0]) if scores else None))
        return in_order(outcomes, tasks)
