"""What runs a network: the seam between the segmenter and PyTorch, ONNX Runtime or OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.results.full_size import Segmented
from iir_sdk.supports.encoded import EncodedSupport

Backend = Literal["torch", "onnxruntime", "openvino"]

_LARGEST_DECODE = 32
"""Most labels decoded at once; bounds memory, not results."""


@dataclass(frozen=True)
class TaskGroup:
    """Labels with equally many shots, decoded together.

    Attributes:
        columns: their places among all labels asked for.
        state: of as many tasks, in the engine's own form.
    """

    columns: tuple[int, ...]
    state: Any


@runtime_checkable
class Engine(Protocol):
    """A network and the pictures' way to it and back; whatever threads use it at once, its answers stay the same."""

    @property
    def name(self) -> str:
        """Of the checkpoint."""
        ...

    @property
    def sha256(self) -> str:
        """Of the checkpoint: kept supports are bound to it."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """What the pictures go through."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in, as ``float32``."""
        ...

    @property
    def backend(self) -> str:
        """What runs it, as ``torch``."""
        ...

    @property
    def place(self) -> str:
        """The device that it runs on, as ``cpu``."""
        ...

    @property
    def calibrated(self) -> bool:
        """Whether its scores tell how probable it is that a picture shows the object."""
        ...

    def encode(
        self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], known: NDArray[np.bool_] | None = None
    ) -> EncodedSupport:
        """A support: picture ``(H, W, 3)`` and mask ``(H, W)``, checked before.

        Where ``known (H, W)`` is False, nobody says whether it is the object: that counts as neither. None is known
        throughout.
        """
        ...

    def prepare(self, states: Sequence[EncodedSupport]) -> list[TaskGroup]:
        """Tasks, one a label, in the engine's own form."""
        ...

    def segment(
        self, pictures: Sequence[NDArray[np.uint8]], tasks: Sequence[TaskGroup]
    ) -> tuple[list[Segmented], Mapping[str, float]]:
        """Pictures ``(H, W, 3)`` by all tasks; milliseconds by stage for all of them."""
        ...


def grouped(states: Sequence[EncodedSupport]) -> list[tuple[int, ...]]:
    """Places of states with equally many shots, at most ``_LARGEST_DECODE`` together."""
    groups = []
    for shots in sorted({s.shots for s in states}):
        columns = [i for i, s in enumerate(states) if s.shots == shots]
        groups += [tuple(columns[i : i + _LARGEST_DECODE]) for i in range(0, len(columns), _LARGEST_DECODE)]
    return groups
