"""A lock for objects that are copied and pickled."""

from __future__ import annotations

from threading import Lock
from types import TracebackType


class FreshLock:
    """A lock whose copies are new and open, since what they guard is a copy too."""

    def __init__(self) -> None:
        self._lock = Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[FreshLock], tuple[()]]:
        """For copies and pickles."""
        return FreshLock, ()
