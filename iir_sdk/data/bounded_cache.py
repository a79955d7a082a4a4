"""Keeps what was computed last, up to so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values by key, least recently used ones dropped beyond ``limit`` bytes; the latest stays, however large."""

    def __init__(self, limit: int, size_of: Callable[[V], int]) -> None:
        self.limit, self.size_of = limit, size_of
        self.nbytes = 0
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, compute: Callable[[], V]) -> V:
        """The value of a key, computed if it is not here."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = compute()
        self._values[key] = value
        self.nbytes += self.size_of(value)
        while self.nbytes > self.limit and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self.nbytes -= self.size_of(dropped)
        return value
