"""What no support changes of a picture: read once and kept, so that new strokes cost the decoder alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.base import Engine, TaskGroup
from iir_sdk.engines.pytorch import TorchEngine
from iir_sdk.errors import PrecisionError
from iir_sdk.pictures.preprocess import resized_picture
from iir_sdk.results.full_size import Segmented
from iir_sdk.web.project.memory import Memory

FEATURES = 1 << 30
"""Bytes of memory for what was read: about 4 MB a picture."""


class Reader:
    """Segments pictures by what is kept of them.

    With PyTorch that are the backbone's features; of other backends, whose backbone and decoder are one graph, the
    picture at the network's size.

    Args:
        engine: the network.
        pixels: of a picture's id, ``(H, W, 3)``.
        limit: bytes of memory.
    """

    def __init__(self, engine: Engine, pixels: Callable[[str], NDArray[np.uint8]], limit: int = FEATURES) -> None:
        self.engine, self._pixels = engine, pixels
        self._read: Memory[str, Any] = Memory(limit, lambda features: int(features.nbytes))

    def holds(self, picture: str) -> bool:
        """Whether a picture is read already."""
        return picture in self._read

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return self._read.full

    def read(self, picture: str, *, only_if_room: bool = False) -> Any:
        """Read a picture and keep it; with ``only_if_room`` no other is dropped for it.

        Raises:
            ImageError, PictureNotFoundError: it cannot be read.
        """
        features = self._read.get(picture)
        if features is None:
            features = self._features(self._pixels(picture))
            self._read.put(picture, features, only_if_room=only_if_room)
        return features

    def _features(self, pixels: NDArray[np.uint8]) -> Any:
        if isinstance(self.engine, TorchEngine):
            return self.engine.read(pixels)
        preprocessing = self.engine.identity.preprocessing
        return resized_picture(pixels, preprocessing.size, preprocessing.interpolation)

    def segmented(self, picture: str, tasks: Sequence[TaskGroup], *, only_if_room: bool = False) -> Segmented:
        """Maps at the network's grid; raises as :meth:`read`, or a PrecisionError where numbers overflow."""
        features = self.read(picture, only_if_room=only_if_room)
        if isinstance(self.engine, TorchEngine):
            segmented = self.engine.segment_read(features, tasks)
        else:
            (segmented,), _ = self.engine.segment([features], tasks)
        if not np.isfinite(segmented.leads).all():
            raise PrecisionError(f"the network overflowed in {self.engine.identity.precision}; open it in float32.")
        return segmented
