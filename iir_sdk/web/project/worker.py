"""The one thread that computes: what users do first, then background work, a picture at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class Worker:
    """Runs what is submitted, in order; while nothing is, ``step`` again and again, as long as it says there is more.

    Args:
        step: a small piece of background work; False where there is none for now.
    """

    def __init__(self, step: Callable[[], bool]) -> None:
        self._step = step
        self._submitted: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._condition = threading.Condition()
        self._more, self._stopped = True, False
        self._thread = threading.Thread(target=self._run, name="iir-web-worker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run ``call`` as soon as what is being computed is done; its result, or what it raised, is the future's."""
        future: Future[T] = Future()
        with self._condition:
            if self._stopped:
                raise RuntimeError("the worker has stopped")
            self._submitted.append((future, call))
            self._condition.notify()
        return future

    def wake(self) -> None:
        """Say that there is background work."""
        with self._condition:
            self._more = True
            self._condition.notify()

    def stop(self) -> None:
        """Finish what is being computed, and no more; what is still submitted is cancelled."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join()
        for future, _ in self._submitted:
            future.cancel()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._submitted or self._more or self._stopped):
                    self._condition.wait()
                if self._stopped:
                    return
                submitted = self._submitted.popleft() if self._submitted else None
                # Before the step, so that what wakes it meanwhile counts.
                self._more = self._more and submitted is not None
            if submitted is not None:
                _answer(*submitted)
            elif self._stepped():
                self.wake()

    def _stepped(self) -> bool:
        """A step; one that fails costs the next ones nothing, and is told where the server logs."""
        try:
            return self._step()
        except Exception:
            _LOG.exception("background work failed")
            return False


def _answer(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
