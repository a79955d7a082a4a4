"""The application under ``/v1``: what :mod:`iir_sdk.web.api.service` does, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response

import iir_sdk
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.messages import (
    CreateSet,
    CreateSetForm,
    ExampleForm,
    ExampleIn,
    ExtendSet,
    HealthOut,
    PredictForm,
    PredictOut,
    PredictRequest,
    SetOut,
    SetsOut,
)
from iir_sdk.web.api.problems import answer_errors_of
from iir_sdk.web.api.reading import BodyLimit, body_of, fields_of, is_form
from iir_sdk.web.api.schema import ERRORS, NOT_FOUND, body, describe
from iir_sdk.web.api.service import LocalService, Service
from iir_sdk.web.api.support_sets import Sets

T = TypeVar("T")

_ABOUT = (
    "One picture with a mask, or a few, make a set of supports; every picture that is sent then gets that thing "
    "masked. Requests are JSON, with files as base64, or forms. Masks are of the picture as shown, by its "
    "EXIF orientation."
)
_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
_EITHER = {
    "content": _PNG,
    "description": "JSON; or, of Accept: image/png, a label map: 0 is background, i the i-th label.",
}


class Api:
    """What the paths under ``/v1`` do: read requests, and have a service do what they ask for.

    Args:
        service: does it.
        limits: of requests.
    """

    def __init__(self, service: Service, limits: Limits) -> None:
        self.service, self.limits = service, limits
        # Base64 of large pictures takes a while, in which others are to be answered.
        self._reading = ThreadPoolExecutor(limits.threads, "iir-api-reading")

    async def health(self) -> HealthOut:
        """Whether the server is ready, and what it runs."""
        return await self.service.health()

    async def create(self, request: Request) -> SetOut:
        """Create a set of supports, of one or several; a form holds one."""
        return await self.service.create(await self._read(request, CreateSet.model_validate_json, _set_of_form))

    async def extend(self, id: str, request: Request) -> SetOut:
        """Add supports and counterexamples to a set: all of them, or none if one cannot be used."""
        asked = await self._read(request, ExtendSet.model_validate_json, _supports_of_form)
        return await self.service.extend(id, asked)

    async def listed(self) -> SetsOut:
        """All sets of supports that are held."""
        return await self.service.listed()

    async def one(self, id: str) -> SetOut:
        """What a set holds."""
        return await self.service.one(id)

    async def file(self, id: str) -> Response:
        """A set as a file: ``load_supports`` of iir_sdk reads it, and a server preloads it."""
        return Response(await self.service.file(id), media_type="application/octet-stream")

    async def forget(self, id: str) -> Response:
        """Delete a set."""
        await self.service.forget(id)
        return Response(status_code=204)

    async def predict(self, request: Request) -> Response:
        """Segment a picture by a set of supports, or by supports that are sent along."""
        as_png = _wants_png(request.headers.get("accept", ""))
        asked = await self._read(request, PredictRequest.model_validate_json, _prediction_of_form)
        answer = await self.service.predict(asked, as_png)
        return Response(answer.content, media_type=answer.media_type, headers=dict(answer.headers))

    async def _read(self, request: Request, of_json: Callable[[bytes], T], of_form: Callable[[dict[str, Any]], T]) -> T:
        """A request's message; a RequestError, or pydantic's, where it is none."""
        sent: Any = await (fields_of if is_form(request) else body_of)(request, self.limits)
        message = partial(of_form if is_form(request) else of_json, sent)
        return await asyncio.get_running_loop().run_in_executor(self._reading, message)


def _set_of_form(fields: dict[str, Any]) -> CreateSet:
    form = CreateSetForm.model_validate(fields)
    example = ExampleIn.model_construct(**{name: getattr(form, name) for name in ExampleIn.model_fields})
    return CreateSet.model_construct(name=form.name, supports=[example])


def _supports_of_form(fields: dict[str, Any]) -> ExtendSet:
    return ExtendSet.model_construct(supports=[ExampleIn.model_validate(fields)])


def _prediction_of_form(fields: dict[str, Any]) -> PredictRequest:
    return PredictRequest.model_validate(PredictForm.model_validate(fields).request())


def _wants_png(accept: str) -> bool:
    """Whether an Accept header names image/png, and before JSON where it names both."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return "image/png" in kinds and "application/json" not in kinds[: kinds.index("image/png")]


def api_app(sets: Sets, limits: Limits | None = None) -> FastAPI:
    """As :func:`service_app`, of sets of supports and a network in this process; None for the usual limits."""
    limits = limits or Limits()
    return service_app(LocalService(sets, limits), limits)


def service_app(service: Service, limits: Limits) -> FastAPI:
    """An application to mount at ``/v1``, with its own errors and its own OpenAPI document.

    Args:
        service: does what requests ask for.
        limits: of requests.
    """
    # No pages of FastAPI's own: what they show is loaded from other servers.
    app = FastAPI(
        title="iir-sdk",
        version=iir_sdk.__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(BodyLimit, most=limits.body_bytes)
    answer_errors_of(app)
    api = Api(service, limits)
    sent = partial(app.add_api_route, methods=["POST"], responses=ERRORS)
    app.add_api_route("/health", api.health, response_model=HealthOut)
    app.add_api_route("/supports", api.listed, response_model=SetsOut)
    sent("/supports", api.create, status_code=201, response_model=SetOut, openapi_extra=body(CreateSet, CreateSetForm))
    sent("/supports/{id}", api.extend, response_model=SetOut, openapi_extra=body(ExtendSet, ExampleForm))
    app.add_api_route("/supports/{id}", api.one, response_model=SetOut, responses=NOT_FOUND)
    app.add_api_route("/supports/{id}/file", api.file, response_class=Response, responses=NOT_FOUND)
    app.add_api_route(
        "/supports/{id}", api.forget, methods=["DELETE"], status_code=204, responses={c: ERRORS[c] for c in (404, 409)}
    )
    sent(
        "/predict",
        api.predict,
        response_model=PredictOut,
        responses={200: _EITHER, **ERRORS},
        openapi_extra=body(PredictRequest, PredictForm),
    )
    describe(app, (CreateSet, ExtendSet, PredictRequest), (CreateSetForm, ExampleForm, PredictForm))
    return app
