"""Requests that come at about the same time, computed together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Batching:
    """How requests are put together.

    Attributes:
        most: items computed at once.
        seconds: that the first of them waits for others, at most, and only while others are on their way.
    """

    most: int = 8
    seconds: float = 0.005


@dataclass
class _Waiting(Generic[Item, Outcome]):
    item: Item
    outcome: asyncio.Future[tuple[Outcome, int]]
    since: float = field(default_factory=time.perf_counter)


class Batcher(Generic[Item, Outcome]):
    """Computes items in one thread, those that wait together; belongs to one event loop.

    While a batch is computed, what comes waits and makes the next one: nobody waits for company on an idle machine.

    Args:
        compute: an outcome for each item. Where it fails of several items, each is computed alone, so that one costs
            no other its outcome.
        batching: how many, and how long they wait.
        coming: how many items are on their way or here; nobody waits for more than these.
    """

    def __init__(
        self, compute: Callable[[Sequence[Item]], Sequence[Outcome]], batching: Batching, coming: Callable[[], int]
    ) -> None:
        self._compute, self._batching, self._coming = compute, batching, coming
        self._thread = ThreadPoolExecutor(1, "iir-batch")
        self._waiting: deque[_Waiting[Item, Outcome]] = deque()
        self._changed = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._since: float | None = None
        self.batches = self.items = 0

    @property
    def busy_seconds(self) -> float:
        """For how long the present batch has been computed; 0 where there is none."""
        since = self._since
        return 0.0 if since is None else time.perf_counter() - since

    async def run(self, item: Item) -> tuple[Outcome, int]:
        """The outcome of an item, and how many were computed together; raises what ``compute`` raises of it alone."""
        waiting: _Waiting[Item, Outcome] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._changed.set()
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await waiting.outcome

    def recount(self) -> None:
        """Tell that fewer items are coming."""
        self._changed.set()

    async def _work(self) -> None:
        while self._waiting:
            await self._fill()
            # Who does not wait any more takes no place.
            waiting = [w for w in self._taken() if not w.outcome.done()]
            if waiting:
                await self._done(waiting)

    async def _fill(self) -> None:
        """Wait for more, where there may be more soon."""
        until = self._waiting[0].since + self._batching.seconds
        while len(self._waiting) < min(self._batching.most, self._coming()):
            left = until - time.perf_counter()
            if left <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                return

    def _taken(self) -> list[_Waiting[Item, Outcome]]:
        count = min(self._batching.most, len(self._waiting))
        return [self._waiting.popleft() for _ in range(count)]

    async def _done(self, waiting: Sequence[_Waiting[Item, Outcome]]) -> None:
        self.batches, self.items = self.batches + 1, self.items + len(waiting)
        try:
            outcomes = await self._computed([w.item for w in waiting])
        except Exception as error:
            if len(waiting) > 1:
                for alone in waiting:
                    await self._done([alone])
            elif not waiting[0].outcome.done():
                waiting[0].outcome.set_exception(error)
            return
        for w, outcome in zip(waiting, outcomes, strict=True):
            if not w.outcome.done():
                w.outcome.set_result((outcome, len(waiting)))

    async def _computed(self, items: Sequence[Item]) -> Sequence[Outcome]:
        self._since = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, items)
        finally:
            self._since = None
