"""What the paths under ``/v1`` ask for, and who does it: this process (:class:`LocalService`), or another."""

from __future__ import annotations

from typing import Protocol

from iir_sdk.web.api.answers import Answer
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.messages import CreateSet, ExtendSet, HealthOut, PredictRequest, SetOut, SetsOut
from iir_sdk.web.api.support_sets import Sets
from iir_sdk.web.api.work import Work
from iir_sdk.web.api.worker import Worker


class Service(Protocol):
    """Does what requests ask for, once their fields are known to be what they should; raises IirErrors."""

    async def health(self) -> HealthOut:
        """What runs."""

    async def create(self, asked: CreateSet) -> SetOut:
        """A new set."""

    async def extend(self, name: str, asked: ExtendSet) -> SetOut:
        """More for a set."""

    async def listed(self) -> SetsOut:
        """All sets."""

    async def one(self, name: str) -> SetOut:
        """What a set holds."""

    async def file(self, name: str) -> bytes:
        """A set, as ``save_supports`` writes it."""

    async def forget(self, name: str) -> None:
        """Let go of a set."""

    async def predict(self, asked: PredictRequest, as_png: bool) -> Answer:
        """A picture's masks."""


class LocalService:
    """In a few threads of this process.

    Args:
        sets: the sets of supports, and the network.
        limits: of requests.
    """

    def __init__(self, sets: Sets, limits: Limits) -> None:
        self.work = Work(sets, limits)
        self.worker = Worker(limits.threads, limits.waiting, limits.seconds)

    async def health(self) -> HealthOut:
        """See :class:`Service`; likewise the others."""
        return self.work.health()

    async def create(self, asked: CreateSet) -> SetOut:
        """A new set."""
        return await self.worker.run(lambda: self.work.create(asked))

    async def extend(self, name: str, asked: ExtendSet) -> SetOut:
        """More for a set."""
        return await self.worker.run(lambda: self.work.extend(name, asked))

    async def listed(self) -> SetsOut:
        """All sets."""
        return self.work.listed()

    async def one(self, name: str) -> SetOut:
        """What a set holds."""
        return self.work.one(name)

    async def file(self, name: str) -> bytes:
        """A set's file."""
        return await self.worker.run(lambda: self.work.file(name))

    async def forget(self, name: str) -> None:
        """Let go of a set."""
        self.work.forget(name)

    async def predict(self, asked: PredictRequest, as_png: bool) -> Answer:
        """A picture's masks."""
        return await self.worker.run(lambda: self.work.predict(asked, as_png))
