"""Opened graphs in forked processes."""

from __future__ import annotations

import ctypes
import os
from weakref import WeakSet

_opened: WeakSet[object] = WeakSet()
_watching_forks = False


def never_closed_in_forks(graph: object) -> None:
    """Leave an opened graph alone in the children that are forked from now on, even at their end.

    A runtime's threads do not live on in a fork, and closing what they worked for waits for them for ever. The graph
    still runs there, in the thread that asks.
    """
    global _watching_forks
    _opened.add(graph)
    if not _watching_forks and hasattr(os, "register_at_fork"):
        _watching_forks = True
        os.register_at_fork(after_in_child=_hold_for_ever)


def _hold_for_ever() -> None:
    for graph in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph))
