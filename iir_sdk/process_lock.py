"""A lock that no forked child waits for."""

from __future__ import annotations

import os
from threading import Lock
from types import TracebackType
from weakref import WeakSet


class ProcessLock:
    """A lock among the threads of one process: open in a child that is forked while another thread holds it.

    That thread does not live on in the child. What is guarded must be whole, or be made anew, wherever it stopped.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def reopen(self) -> None:
        """Forget who holds it."""
        self._lock = Lock()


_locks: WeakSet[ProcessLock] = WeakSet()


def _reopen_all() -> None:
    for lock in list(_locks):
        lock.reopen()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reopen_all)
