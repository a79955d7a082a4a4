"""What no support changes of a picture: read once and kept, so that new strokes cost the decoder alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.bounded_cache import BoundedCache
from iir_sdk.engines.base import Engine, TaskGroup
from iir_sdk.engines.pytorch import TorchEngine
from iir_sdk.errors import PrecisionError
from iir_sdk.pictures.preprocess import resized_picture
from iir_sdk.results.correction import SIDE
from iir_sdk.results.full_size import Segmented

FEATURES = 1 << 30
"""Bytes of memory for what was read: about 4 MB a picture."""


class Reader:
    """Segments pictures by what is kept of them.

    With PyTorch that are the backbone's features; of other backends, whose backbone and decoder are one graph, the
    picture at the network's size. Such small pictures are made ahead by a thread of their own, so that nobody waits for
    a large file to be decoded.

    Args:
        engine: the network.
        pixels: of a picture's id, ``(H, W, 3)``.
        limit: bytes of memory.
        on_ready: called from that thread whenever it has read a picture.
    """

    def __init__(
        self,
        engine: Engine,
        pixels: Callable[[str], NDArray[np.uint8]],
        limit: int = FEATURES,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine, self._pixels, self._on_ready = engine, pixels, on_ready
        self._read: BoundedCache[str, Any] = BoundedCache(limit, lambda features: int(features.nbytes))
        self._small: BoundedCache[str, NDArray[np.uint8]] = BoundedCache(limit // 4, lambda pixels: int(pixels.nbytes))
        self._failed: dict[str, Exception] = {}
        self._ahead: set[str] = set()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="iir-web-read")

    def close(self) -> None:
        """Read no further picture."""
        self._pool.shutdown(cancel_futures=True)

    def holds(self, picture: str) -> bool:
        """Whether a picture's features are kept."""
        return picture in self._read

    def is_ready(self, picture: str) -> bool:
        """Whether a picture can be segmented without its file, or is known to be broken."""
        return picture in self._read or picture in self._small or picture in self._failed

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return self._read.full

    def read_ahead(self, pictures: Sequence[str]) -> None:
        """Read files of pictures that will be asked for next, in this order."""
        for picture in pictures:
            if picture not in self._ahead and not self.is_ready(picture):
                self._ahead.add(picture)
                self._pool.submit(self._make_small, picture)

    def _make_small(self, picture: str) -> None:
        try:
            self._small.put(picture, self._resized(picture))
        except Exception as error:
            self._failed[picture] = error
        self._ahead.discard(picture)
        self._on_ready()

    def _resized(self, picture: str) -> NDArray[np.uint8]:
        preprocessing = self.engine.identity.preprocessing
        return resized_picture(self._pixels(picture), preprocessing.size, preprocessing.interpolation)

    def read(self, picture: str, *, only_if_room: bool = False) -> Any:
        """Read a picture and keep it; with ``only_if_room`` no other is dropped for it.

        Raises:
            ImageError, PictureNotFoundError: it cannot be read.
        """
        features = self._read.get(picture)
        if features is not None:
            return features
        if picture in self._failed:
            raise self._failed.pop(picture)
        small = self._small.get(picture)
        if small is None:
            small = self._resized(picture)
            self._small.put(picture, small)
        # The network resizes what it is given to the size that this has already.
        features = self.engine.read(small) if isinstance(self.engine, TorchEngine) else small
        self._read.put(picture, features, only_if_room=only_if_room)
        return features

    def looks(self, picture: str) -> NDArray[np.float32] | None:
        """What its places look like, see :meth:`Engine.looks`, where the network tells; raises as :meth:`read`."""
        return self.engine.looks(self.read(picture), SIDE)

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
