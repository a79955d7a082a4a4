"""What threads and forked children of one process share: locks; torch's default device and its threads.

Torch is imported where it is needed: exported folders run without it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, local
from types import TracebackType
from typing import Any
from weakref import WeakSet

from iir_sdk.errors import IirWarning


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

    def __reduce__(self) -> tuple[type[ProcessLock], tuple[()]]:
        """For copies and pickles: a lock of its own, open."""
        return ProcessLock, ()

    def reopen(self) -> None:
        """Forget who holds it."""
        self._lock = Lock()


_locks: WeakSet[ProcessLock] = WeakSet()


def _reopen_all() -> None:
    for lock in list(_locks):
        lock.reopen()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reopen_all)


_collecting = local()
_installing = Lock()


@contextmanager
def collecting_warnings() -> Iterator[list[str]]:
    """The messages of the IirWarnings that this thread gives within, in place of showing them.

    Unlike ``warnings.catch_warnings``, which changes what all threads do and leaves that behind where two overlap. From
    the first use on IirWarnings are given each time, and not once for each line of code.
    """
    global _show, _ignores
    with _installing:
        if warnings.showwarning is not _collect:
            _ignores, _show, warnings.showwarning = _ignored(), warnings.showwarning, _collect
            warnings.simplefilter("always", IirWarning)
    messages: list[str] = []
    outer, _collecting.messages = getattr(_collecting, "messages", None), messages
    try:
        yield messages
    finally:
        _collecting.messages = outer


_show: Callable[..., object] = warnings.showwarning
_ignores = False


def _ignored() -> bool:
    for action, message, category, module, _line in warnings.filters:
        if issubclass(IirWarning, category) and message is None and module is None:
            return action == "ignore"
    return False


def _collect(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *shown: Any, **options: Any
) -> None:
    """What takes the place of ``warnings.showwarning``."""
    messages = getattr(_collecting, "messages", None)
    ours = issubclass(category, IirWarning)
    if ours and messages is not None:
        messages.append(str(message))
    elif not (ours and _ignores):
        _show(message, category, filename, lineno, *shown, **options)


_forked = False
_watching_forks = False


@contextmanager
def unset_default_device() -> Iterator[None]:
    """Make tensors whose device nobody names on the CPU, as torch does unless ``set_default_device`` was called."""
    import torch

    if torch.get_default_device().type == "cpu":
        yield
        return
    with torch.device("cpu"):
        yield


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Compute with so many threads, None for torch's present number, and without a default device.

    Torch keeps the number by calling thread, so that other threads go on with theirs; one that computes by torch for
    the first time meanwhile starts out with this one's.
    """
    import torch

    before = torch.get_num_threads()
    # The pool of a forked child's first thread is gone, and whoever waits for it waits for ever.
    wanted = 1 if _forked else threads or before
    if threads is not None and threads > wanted:
        warnings.warn(
            f"threads={threads}: a forked process computes with one thread, since the others that torch had do not "
            "live on in it. Start it with multiprocessing's 'spawn' for more.",
            IirWarning,
            stacklevel=4,
        )
    with unset_default_device():
        if wanted == before:
            yield
            return
        torch.set_num_threads(wanted)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def keep_forks_alive() -> None:
    """Let children that are forked from now on compute with one thread.

    OpenMP's threads do not live on in a fork, and its next parallel step in the child would wait for them for ever.
    """
    global _watching_forks
    if not _watching_forks and hasattr(os, "register_at_fork"):
        _watching_forks = True
        os.register_at_fork(after_in_child=_go_on_alone)


def _go_on_alone() -> None:
    global _forked
    import torch

    _forked = True
    torch.set_num_threads(1)
