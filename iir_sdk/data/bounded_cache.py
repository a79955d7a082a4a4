"""What is kept in memory by key, up to so many bytes; threads and forked children use it at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from iir_sdk.process import ProcessLock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values by key, within ``limit`` bytes: those used longest ago are dropped, and what is larger is never kept.

    Args:
        limit: bytes of all values.
        size_of: bytes of one, the same whenever it is asked.
    """

    def __init__(self, limit: int, size_of: Callable[[V], int]) -> None:
        self.limit, self.nbytes = limit, 0
        self._size_of = size_of
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = ProcessLock()

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def get(self, key: K) -> V | None:
        """The value of a key, which is now the latest used; None where it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V, *, only_if_room: bool = False) -> None:
        """Keep a value and drop those used longest ago; with ``only_if_room`` it is this one that is not kept.

        A sweep over more than fits would else drop every value just before it is asked for again.
        """
        size = self._size_of(value)
        with self._lock:
            if key in self._values:
                self.nbytes -= self._size_of(self._values.pop(key))
            if size > self.limit or (only_if_room and self.nbytes + size > self.limit):
                return
            self._values[key] = value
            self.nbytes += size
            while self.nbytes > self.limit:
                _, dropped = self._values.popitem(last=False)
                self.nbytes -= self._size_of(dropped)

    def computed(self, key: K, compute: Callable[[], V]) -> V:
        """The value of a key, computed if it is not kept, by each of the threads that ask for it meanwhile."""
        value = self.get(key)
        if value is None:
            value = compute()
            self.put(key, value)
        return value

    @property
    def full(self) -> bool:
        """Whether another value of the mean size would push one out."""
        return self.nbytes + self.nbytes // max(1, len(self._values)) > self.limit
