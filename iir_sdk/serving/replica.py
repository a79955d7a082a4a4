"""What one replica does: requests prepared in threads, computed together, finished in threads. Knows nothing of Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from iir_sdk.engines.tiled import Tiling
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.process import collecting_warnings
from iir_sdk.results.full_size import Segmented
from iir_sdk.results.segmentation import Cut
from iir_sdk.segmenter import Asked
from iir_sdk.serving.batching import Batcher, Batching
from iir_sdk.serving.set_folder import SetFolder
from iir_sdk.web.api.answers import Answer
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.messages import CreateSet, ExtendSet, HealthOut, PredictRequest, SetOut, SetsOut
from iir_sdk.web.api.work import Work, answer_of

T = TypeVar("T")

_STUCK = 5.0
"""Times a request's seconds: a batch that takes longer will not end."""


@dataclass(frozen=True)
class _Question:
    picture: Picture
    asked: Asked
    warnings: list[str]


@dataclass(frozen=True)
class Figures:
    """Of a replica, since it started.

    Attributes:
        sets: in memory.
        set_bytes: that they hold.
        loads: sets read from files.
        evictions: sets that left the memory for others.
        batches: computed.
        pictures: in these.
    """

    sets: int
    set_bytes: int
    loads: int
    evictions: int
    batches: int
    pictures: int


class Replica:
    """Does what :class:`iir_sdk.web.api.service.Service` says, several predictions at once; of one event loop.

    Args:
        sets: the sets of supports, and the network.
        limits: of requests.
        batching: of predictions.
    """

    def __init__(self, sets: SetFolder, limits: Limits, batching: Batching) -> None:
        self.sets, self._limits = sets, limits
        self._engine = sets.segmenter.engine
        self._work = Work(sets, limits)
        self._threads = ThreadPoolExecutor(limits.threads, "iir-serving")
        self._predictions = 0
        self.batcher: Batcher[_Question, tuple[Segmented, Mapping[str, float]]] = Batcher(
            self._computed, batching, lambda: self._predictions
        )

    @property
    def figures(self) -> Figures:
        """See :class:`Figures`."""
        sets, batcher = self.sets, self.batcher
        return Figures(len(sets.held), sets.held_bytes, sets.loads, sets.evictions, batcher.batches, batcher.items)

    @property
    def stuck(self) -> bool:
        """Whether what is computed will hardly end."""
        return self.batcher.busy_seconds > _STUCK * self._limits.seconds

    async def health(self) -> HealthOut:
        """What runs; see :class:`iir_sdk.web.api.service.Service`, likewise the others."""
        return await self._in_thread(self._work.health)

    async def create(self, asked: CreateSet) -> SetOut:
        """A new set."""
        return await self._in_thread(partial(self._work.create, asked))

    async def extend(self, name: str, asked: ExtendSet) -> SetOut:
        """More for a set."""
        return await self._in_thread(partial(self._work.extend, name, asked))

    async def listed(self) -> SetsOut:
        """All sets."""
        return await self._in_thread(self._work.listed)

    async def one(self, name: str) -> SetOut:
        """What a set holds."""
        return await self._in_thread(partial(self._work.one, name))

    async def file(self, name: str) -> bytes:
        """A set's file."""
        return await self._in_thread(partial(self._work.file, name))

    async def forget(self, name: str) -> None:
        """Let go of a set."""
        await self._in_thread(partial(self._work.forget, name))

    async def predict(self, asked: PredictRequest, as_png: bool) -> tuple[Answer, int]:
        """A picture's masks, and how many pictures were computed together."""
        self._predictions += 1
        try:
            question = await self._in_thread(partial(self._prepared, asked))
            (segmented, timings), together = await self.batcher.run(question)
        finally:
            self._predictions -= 1
            self.batcher.recount()
        return await self._in_thread(partial(_finished, question, segmented, timings, asked, as_png)), together

    def _prepared(self, asked: PredictRequest) -> _Question:
        """All that concerns this request alone, so that what is wrong with it costs no other."""
        with collecting_warnings() as warnings:
            cut, tiling = Cut(asked.threshold, asked.absent_below, asked.sharpen), Tiling(asked.tile, asked.overlap)
            by = self._work.segmenter_of(asked).asked(labels=asked.labels, cut=cut, tiling=tiling)
            picture = load_picture(asked.image, what="query", page=asked.page)
        return _Question(picture, by, warnings)

    def _computed(self, questions: Sequence[_Question]) -> list[tuple[Segmented, Mapping[str, float]]]:
        pictures, tasks = [q.picture.pixels for q in questions], [q.asked.tasks for q in questions]
        segmented, timings = self._engine.segment_each(pictures, tasks)
        return [(each, timings) for each in segmented]

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _finished(
    question: _Question, segmented: Segmented, timings: Mapping[str, float], asked: PredictRequest, as_png: bool
) -> Answer:
    with collecting_warnings() as warnings:
        result = question.asked.result(question.picture, segmented, timings)
        return answer_of(result, asked, as_png, [*question.warnings, *warnings])
