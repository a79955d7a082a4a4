"""The HTTP side: the API's application, whose work is done by the replicas, behind the door."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from iir_sdk.errors import BusyError, IirError
from iir_sdk.serving.metrics import Measured, Metrics
from iir_sdk.web.api.answers import Answer
from iir_sdk.web.api.app import service_app
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.messages import CreateSet, ExtendSet, HealthOut, PredictRequest, SetOut, SetsOut
from iir_sdk.web.api.problems import answer_to
from iir_sdk.web.server.door import Door, Guarded

_ATTEMPTS = 3
_LOST = (RayActorError, ReplicaUnavailableError)


class RemoteService:
    """See :class:`iir_sdk.web.api.service.Service`: asks replicas, and asks another one where one ended.

    Args:
        handle: of the replicas.
        limits: of requests.
        metrics: are told what comes with answers.
    """

    def __init__(self, handle: DeploymentHandle[Any], limits: Limits, metrics: Metrics) -> None:
        self._handle, self._limits, self._metrics = handle, limits, metrics

    async def health(self) -> HealthOut:
        """What runs."""
        return await self._asked("health")  # type: ignore[no-any-return]

    async def create(self, asked: CreateSet) -> SetOut:
        """A new set; asked for once, since the replica may have made it before it ended."""
        return await self._asked("create", asked, attempts=1)  # type: ignore[no-any-return]

    async def extend(self, name: str, asked: ExtendSet) -> SetOut:
        """More for a set; asked for once."""
        return await self._asked("extend", name, asked, attempts=1)  # type: ignore[no-any-return]

    async def listed(self) -> SetsOut:
        """All sets."""
        return await self._asked("listed")  # type: ignore[no-any-return]

    async def one(self, name: str) -> SetOut:
        """What a set holds."""
        return await self._asked("one", name)  # type: ignore[no-any-return]

    async def file(self, name: str) -> bytes:
        """A set's file."""
        return await self._asked("file", name)  # type: ignore[no-any-return]

    async def forget(self, name: str) -> None:
        """Let go of a set."""
        await self._asked("forget", name, attempts=1)

    async def predict(self, asked: PredictRequest, as_png: bool) -> Answer:
        """A picture's masks."""
        return await self._asked("predict", asked, as_png, of_set=asked.set)  # type: ignore[no-any-return]

    async def _asked(self, what: str, *given: Any, attempts: int = _ATTEMPTS, of_set: str | None = None) -> Any:
        """What a replica answers; raises the IirError that it answers.

        Raises:
            BusyError: too many wait already, it took too long, or replicas ended.
        """
        answer = self._from_any(what, *given, attempts=attempts, of_set=of_set)
        try:
            return await asyncio.wait_for(answer, self._limits.seconds)
        except BusyError:
            raise  # a TimeoutError, too
        except asyncio.TimeoutError as error:
            raise BusyError(f"there was no answer within {self._limits.seconds:g} seconds.") from error

    async def _from_any(self, what: str, *given: Any, attempts: int, of_set: str | None) -> Any:
        for _ in range(attempts):
            try:
                return await self._answered(what, *given, of_set=of_set)
            except _LOST:
                self._metrics.lost.inc()
        raise BusyError(
            "the process that worked on it ended, and another takes its place"
            + ("." if attempts > 1 else "; see what there is by GET before it is sent again.")
        )

    async def _answered(self, what: str, *given: Any, of_set: str | None) -> Any:
        handle = self._handle
        if of_set is not None and self._metrics.crowded:
            # Replicas that hold the set are asked first, unless they are full. As long as each can hold all sets, the
            # one with the least to do is the better one, and a set is read in a few milliseconds.
            handle = handle.options(multiplexed_model_id=of_set)
        response = handle.call.remote(what, *given)
        try:
            reply = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError as error:
            raise BusyError("too many requests are being worked on or wait already.") from error
        except DeploymentUnavailableError as error:
            raise BusyError("no process to work on it could be started; the server's log says why.") from error
        self._metrics.seen(reply.replica, reply.figures, reply.together)
        if isinstance(reply.outcome, IirError):
            raise reply.outcome
        return reply.outcome


class Draining:
    """An application that takes no further requests once that is asked for, and knows how many it works on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.stopping, self.at_work = False, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.stopping:
            refusal = answer_to(BusyError("the server is stopping."))
            refusal.headers["Connection"] = "close"
            await refusal(scope, receive, send)
            return
        self.at_work += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.at_work -= 1


def front(handle: DeploymentHandle[Any], limits: Limits, door: Door) -> tuple[ASGIApp, Draining]:
    """All that is served, behind the door: ``/v1`` and ``/metrics``; and the part of it by which it stops in order."""
    metrics = Metrics()

    async def told(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    api: FastAPI = service_app(RemoteService(handle, limits, metrics), limits)
    draining = Draining(Starlette(routes=[Route("/metrics", told), Mount("/v1", api)]))
    return Measured(Guarded(draining, door), metrics), draining
