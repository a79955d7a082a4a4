"""The application under ``/v1``: what :mod:`iir_sdk.web.api.support_sets` does, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response

import iir_sdk
from iir_sdk.errors import RequestError, RequestTooLargeError
from iir_sdk.process import collecting_warnings
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.web.api.answers import label_map_png, labels_header, predict_out, set_out
from iir_sdk.web.api.limits import Limits, check_pixels
from iir_sdk.web.api.messages import (
    CreateSet,
    CreateSetForm,
    ExampleForm,
    ExampleIn,
    ExtendSet,
    HealthOut,
    LimitsOut,
    PredictForm,
    PredictOut,
    PredictRequest,
    SetOut,
    SetsOut,
)
from iir_sdk.web.api.problems import answer_errors_of
from iir_sdk.web.api.reading import BodyLimit, body_of, fields_of, is_form
from iir_sdk.web.api.schema import ERRORS, NOT_FOUND, body, describe
from iir_sdk.web.api.support_sets import Example, SupportSet, SupportSets
from iir_sdk.web.api.worker import Worker

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
    """What the paths under ``/v1`` do.

    Args:
        sets: the sets of supports, and the network.
        limits: of requests.
    """

    def __init__(self, sets: SupportSets, limits: Limits) -> None:
        self.sets, self.limits = sets, limits
        self.worker = Worker(limits.threads, limits.waiting, limits.seconds)

    async def health(self) -> HealthOut:
        """Whether the server is ready, and what it runs."""
        identity, limits = self.sets.segmenter.engine.identity, self.limits
        return HealthOut(
            version=iir_sdk.__version__,
            weights=identity.name,
            sha256=identity.sha256,
            backend=identity.backend,
            device=identity.place,
            precision=identity.precision,
            calibrated=identity.calibrated,
            sets=len(self.sets.listed()),
            limits=LimitsOut(**{name: getattr(limits, name) for name in LimitsOut.model_fields}),
        )

    async def create(self, request: Request) -> SetOut:
        """Create a set of supports, of one or several; a form holds one."""
        if is_form(request):
            fields = await fields_of(request, self.limits)
            return await self.worker.run(lambda: self._created_by_form(fields))
        content = await body_of(request, self.limits)
        return await self.worker.run(lambda: self._created(CreateSet.model_validate_json(content)))

    async def extend(self, id: str, request: Request) -> SetOut:
        """Add supports and counterexamples to a set: all of them, or none if one cannot be used."""
        if is_form(request):
            fields = await fields_of(request, self.limits)
            return await self.worker.run(lambda: self._extended(id, [ExampleIn.model_validate(fields)]))
        content = await body_of(request, self.limits)
        return await self.worker.run(lambda: self._extended(id, ExtendSet.model_validate_json(content).supports))

    async def listed(self) -> SetsOut:
        """All sets of supports that are held."""
        return SetsOut(sets=[set_out(each) for each in self.sets.listed()])

    async def one(self, id: str) -> SetOut:
        """What a set holds."""
        return set_out(self.sets.get(id))

    async def file(self, id: str) -> Response:
        """A set as a file: ``load_supports`` of iir_sdk reads it, and a server preloads it."""
        content = await self.worker.run(lambda: self.sets.get(id).file())
        return Response(content, media_type="application/octet-stream")

    async def forget(self, id: str) -> Response:
        """Delete a set."""
        self.sets.forget(id)
        return Response(status_code=204)

    async def predict(self, request: Request) -> Response:
        """Segment a picture by a set of supports, or by supports that are sent along."""
        as_form = is_form(request)
        sent: Any = await (fields_of if as_form else body_of)(request, self.limits)
        as_png = _wants_png(request.headers.get("accept", ""))
        return await self.worker.run(lambda: self._predicted(sent, as_form, as_png))

    def _created_by_form(self, fields: dict[str, Any]) -> SetOut:
        form = CreateSetForm.model_validate(fields)
        example = ExampleIn.model_construct(**{name: getattr(form, name) for name in ExampleIn.model_fields})
        return self._created(CreateSet.model_construct(name=form.name, supports=[example]))

    def _created(self, asked: CreateSet) -> SetOut:
        return self._collecting(lambda: self.sets.create(self._checked(asked.supports), asked.name))

    def _extended(self, name: str, supports: list[ExampleIn]) -> SetOut:
        return self._collecting(lambda: self.sets.add(name, self._checked(supports)))

    def _collecting(self, change: Callable[[], SupportSet]) -> SetOut:
        with collecting_warnings() as warnings:
            changed = change()
        return set_out(changed, warnings)

    def _predicted(self, sent: Any, as_form: bool, as_png: bool) -> Response:
        if as_form:
            asked = PredictRequest.model_validate(PredictForm.model_validate(sent).request())
        else:
            asked = PredictRequest.model_validate_json(sent)
        with collecting_warnings() as warnings:
            result = self._segmentation(asked)
        if as_png:
            return Response(label_map_png(result), media_type="image/png", headers=labels_header(result))
        return Response(predict_out(result, asked.masks, warnings).model_dump_json(), media_type="application/json")

    def _segmentation(self, asked: PredictRequest) -> Segmentation:
        if (asked.set is None) == (asked.supports is None):
            raise RequestError("a prediction needs either set, the id of a set of supports, or supports of its own.")
        check_pixels(asked.image, "image", self.limits.pixels)
        if asked.set is not None:
            segmenter = self.sets.get(asked.set).segmenter
        else:
            segmenter = self.sets.taught(self._checked(asked.supports or ()))
        options = {name: getattr(asked, name) for name in ("labels", "threshold", "absent_below", "tile", "overlap")}
        return segmenter.predict(asked.image, **options, sharpen=asked.sharpen, page=asked.page)

    def _checked(self, supports: Iterable[ExampleIn]) -> list[Example]:
        """Examples within the bounds."""
        examples = [each.example() for each in supports]
        if len(examples) > self.limits.examples:
            raise RequestTooLargeError(
                f"{len(examples)} supports were sent, and a request holds at most {self.limits.examples}: send the "
                "others by further requests to POST /v1/supports/{id}."
            )
        for example in examples:
            for what in ("image", "mask", "known", "region"):
                check_pixels(getattr(example, what), what, self.limits.pixels)
        return examples


def _wants_png(accept: str) -> bool:
    """Whether an Accept header names image/png, and before JSON where it names both."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return "image/png" in kinds and "application/json" not in kinds[: kinds.index("image/png")]


def api_app(sets: SupportSets, limits: Limits | None = None) -> FastAPI:
    """An application to mount at ``/v1``, with its own errors and its own OpenAPI document.

    Args:
        sets: the sets of supports, and the network.
        limits: of requests; None for the usual ones.
    """
    limits = limits or Limits()
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
    api = Api(sets, limits)
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
