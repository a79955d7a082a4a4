"""Threads that requests are worked on in, so that the server goes on answering; not too many wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

from iir_sdk.errors import BusyError

T = TypeVar("T")


class Worker:
    """Runs calls in a few threads.

    Args:
        threads: calls that run at once.
        waiting: calls that wait for a thread.
        seconds: for an answer. Who waits no longer leaves the queue; a call that runs already runs to its end.
    """

    def __init__(self, threads: int, waiting: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(threads, "iir-api")
        self._most, self._seconds = threads + waiting, seconds
        self._unfinished = 0
        self._counting = Lock()

    async def run(self, call: Callable[[], T]) -> T:
        """What a call gives, or raises.

        Raises:
            BusyError: too many wait already, or it took too long.
        """
        with self._counting:
            if self._unfinished >= self._most:
                raise BusyError(f"{self._unfinished} requests are being worked on or wait already.")
            self._unfinished += 1
        future = self._pool.submit(call)
        future.add_done_callback(self._finished)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except BusyError:
            raise  # a TimeoutError, too
        except asyncio.TimeoutError as error:
            raise BusyError(f"there was no answer within {self._seconds:g} seconds.") from error

    def _finished(self, future: Future[T]) -> None:
        with self._counting:
            self._unfinished -= 1
