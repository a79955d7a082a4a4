"""What runs a network: the seam between the segmenter and PyTorch, ONNX Runtime or OpenVINO."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from iir_sdk.model.support_state import Tokens
from iir_sdk.pictures.preprocess import Preprocessing, SupportInput
from iir_sdk.results.full_size import Segmented
from iir_sdk.supports.encoded import EncodedSupport, join_tasks, with_mass

Backend = Literal["torch", "onnxruntime", "openvino"]

Arrays = Mapping[str, NDArray[Any]]
"""Of an encoded support or several, by the names of :mod:`iir_sdk.model.support_state`."""

_LARGEST_DECODE = 32
"""Most labels decoded at once; bounds memory, not results."""


@dataclass(frozen=True)
class EngineIdentity:
    """What an engine is."""

    name: str  # of the checkpoint
    sha256: str  # of the checkpoint: supports in files are bound to it
    preprocessing: Preprocessing  # what the pictures go through
    precision: str  # what it computes in, as ``float32``
    backend: str  # what runs it, as ``torch``
    place: str  # the device that it runs on, as ``cpu``
    calibrated: bool  # whether its scores tell how probable it is that a picture shows the object


@dataclass(frozen=True)
class TaskGroup:
    """Labels with equally many shots, decoded together."""

    columns: tuple[int, ...]  # their places among all labels asked for
    state: Any  # of as many tasks, in the engine's own form


class Engine(ABC):
    """A network and the pictures' way to it and back; whatever threads use it at once, its answers stay the same.

    Attributes:
        identity: which weights it runs, and how.
    """

    identity: EngineIdentity

    def encode(
        self,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        known: NDArray[np.bool_] | None = None,
        *,
        whole: bool = False,
    ) -> EncodedSupport:
        """A support: picture ``(H, W, 3)`` and mask ``(H, W)``, checked before; floats are kept in float16.

        Where ``known (H, W)`` is False, nobody says whether it is the object: that counts as neither. None is known
        throughout. With ``whole`` it is not cut to the object's surroundings.
        """
        preprocessing = self.identity.preprocessing
        shown = replace(preprocessing, support_context=0) if whole else preprocessing
        arrays = self._encoded(shown.support(pixels, mask, known))
        return EncodedSupport.from_arrays({name: halved(array) for name, array in arrays.items()}).with_mass()

    def encode_counterexample(self, pixels: NDArray[np.uint8], region: NDArray[np.bool_]) -> Tokens[NDArray[Any]]:
        """What is not the object: the ``region (H, W)`` of a picture ``(H, W, 3)``, checked before.

        It is cut out as a support's object is. Tokens of one shot, in float16; none where the region is too small to
        leave any.
        """
        shown = self.identity.preprocessing.support(pixels, region)
        tokens = self._encoded_counterexample(shown.image, shown.mask).along(lambda array, _: halved(array))
        return with_mass(tokens)

    def prepare(self, states: Sequence[EncodedSupport]) -> list[TaskGroup]:
        """Tasks, one a label, in the engine's own form: those with equally many shots together."""
        groups = []
        for shots in sorted({s.shots for s in states}):
            columns = [i for i, s in enumerate(states) if s.shots == shots]
            for first in range(0, len(columns), _LARGEST_DECODE):
                together = tuple(columns[first : first + _LARGEST_DECODE])
                groups.append(TaskGroup(together, self._loaded(join_tasks([states[c] for c in together]).arrays())))
        return groups

    @abstractmethod
    def segment(
        self, pictures: Sequence[NDArray[np.uint8]], tasks: Sequence[TaskGroup]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """Pictures ``(H, W, 3)`` by all tasks; milliseconds by stage for all of them."""

    def segment_each(
        self, pictures: Sequence[NDArray[np.uint8]], tasks_of_each: Sequence[Sequence[TaskGroup]]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """As :meth:`segment`, each picture by tasks of its own: those with the same ones, as objects, together."""
        segmented: dict[int, Segmented] = {}
        timings: dict[str, float] = {}
        for rows in rows_by_tasks(tasks_of_each):
            outcomes, laps = self.segment([pictures[row] for row in rows], tasks_of_each[rows[0]])
            segmented.update(zip(rows, outcomes, strict=True))
            timings.update({name: timings.get(name, 0.0) + lap for name, lap in laps.items()})
        return [segmented[row] for row in range(len(pictures))], timings

    @cached_property
    def like_supports(self) -> EncodedSupport:
        """A support as this engine encodes them, of nothing: what shapes and dtypes others are to have."""
        return self.encode(np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=np.bool_))

    def segment_with_looks(
        self, picture: NDArray[np.uint8], tasks: Sequence[TaskGroup]
    ) -> tuple[Segmented, NDArray[np.float32] | None, Mapping[str, float]]:
        """As :meth:`segment` of one picture, and what its places look like to the network.

        Float32 ``(C, 20, 20)``, vectors of length 1, whose products say how alike two places are; None of a runtime
        whose graphs do not give them.
        """
        (segmented,), timings = self.segment([picture], tasks)
        return segmented, None, timings

    def looks(self, features: Any, side: int) -> NDArray[np.float32] | None:
        """Of what a network read of one picture, what its places look like: float32 ``(C, side, side)``.

        Vectors of length 1 that say how places differ from the picture's mean; None of a runtime without.
        """
        return None

    @abstractmethod
    def _encoded(self, support: SupportInput) -> Arrays:
        """The network's answer to a support, floats in float32."""

    @abstractmethod
    def _encoded_counterexample(self, image: NDArray[np.float32], known: NDArray[np.float32]) -> Tokens[NDArray[Any]]:
        """The network's answer to a picture ``(3, side, side)`` that, where ``known``, is not of the object."""

    @abstractmethod
    def _loaded(self, arrays: Arrays) -> Any:
        """Such arrays of several tasks in the engine's own form, floats in float32."""


def halved(array: NDArray[Any]) -> NDArray[Any]:
    """Float32 as float16: half the memory, and far less of a difference than bfloat16 makes of the same numbers."""
    with np.errstate(over="ignore"):
        return array.astype(np.float16) if array.dtype == np.float32 else array


def rows_by_tasks(tasks_of_each: Sequence[Sequence[TaskGroup]]) -> list[list[int]]:
    """Which pictures have the same tasks, as objects."""
    rows: dict[int, list[int]] = {}
    for row, tasks in enumerate(tasks_of_each):
        rows.setdefault(id(tasks), []).append(row)
    return list(rows.values())


def in_order(outcomes: Sequence[Segmented], tasks: Sequence[TaskGroup]) -> Segmented:
    """One picture's outcomes of all tasks as one, its labels in the order that they were asked for."""
    if len(outcomes) == 1:
        return outcomes[0]
    order = np.argsort([column for task in tasks for column in task.columns])
    leads, priors = (np.concatenate(maps)[order] for maps in zip(*((o.leads, o.priors) for o in outcomes), strict=True))
    scores = [o.scores for o in outcomes if o.scores is not None]
    return Segmented(leads, priors, np.concatenate(scores)[order] if scores else None)
