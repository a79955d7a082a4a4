"""Opened graphs in forked processes."""

from __future__ import annotations

import ctypes
import os
from weakref import WeakSet, finalize

_opened: WeakSet[object] = WeakSet()
_watching_forks = False
_closed = False
_forked_after_closing = False


def never_closed_in_forks(graph: object) -> None:
    """Leave an opened graph alone in the children that are forked from now on, even at their end.

    A runtime's threads do not live on in a fork, and closing what they worked for waits for them for ever. The graph
    still runs there, in the thread that asks.
    """
    global _watching_forks
    _opened.add(graph)
    if not _watching_forks and hasattr(os, "register_at_fork"):
        _watching_forks = True
        os.register_at_fork(after_in_child=_go_on_in_child)


def noted_when_closed(graph: object) -> None:
    """Remember that a graph of OpenVINO was closed: it keeps the threads of closed ones, for those opened next."""
    finalize(graph, _note_closing).atexit = False


def forked_after_closing() -> bool:
    """Whether OpenVINO would give graphs opened in this process threads that do not live here, and wait for ever."""
    return _forked_after_closing


def _note_closing() -> None:
    global _closed
    _closed = True


def _go_on_in_child() -> None:
    global _forked_after_closing
    _forked_after_closing = _closed
    for graph in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph))
