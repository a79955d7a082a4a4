"""What a forked child makes of something while other threads seem to be at work."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")


def forked(work: Callable[[], Any], *locks: AbstractContextManager[object]) -> Any:
    """What ``work`` returns in a child that is forked while this thread holds locks; fails where the child hangs."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(work()))
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    assert not alive, "the child hangs"
    assert child.exitcode == 0
    return answers.get()
