"""Torch's settings of the whole process, kept from an engine's computing: the default device, and threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from iir_sdk.errors import IirWarning

_forked = False
_watching_forks = False


@contextmanager
def unset_default_device() -> Iterator[None]:
    """Make tensors whose device nobody names on the CPU, as torch does unless ``set_default_device`` was called."""
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
    _forked = True
    torch.set_num_threads(1)
