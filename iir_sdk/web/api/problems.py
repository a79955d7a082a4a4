"""Errors as answers: a status, and JSON of a code, a message and a cure in the words of requests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from iir_sdk import errors
from iir_sdk.errors import IirError, RequestError
from iir_sdk.web.api import messages

_LOG = logging.getLogger(__name__)

_ASKED = (messages.CreateSetForm, messages.ExtendSet, messages.PredictRequest, messages.PredictForm)
_FIELDS = frozenset(name for message in _ASKED for name in message.model_fields)

_UNUSABLE = HTTPStatus.UNPROCESSABLE_ENTITY
_OF_KINDS: Sequence[tuple[type[IirError], HTTPStatus, str]] = (
    (
        errors.RequestTooLargeError,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "Send less: GET /v1/health tells the limits.",
    ),
    (
        errors.SupportSetNotFoundError,
        HTTPStatus.NOT_FOUND,
        "Create the set again by POST /v1/supports; GET /v1/supports lists those that are there.",
    ),
    (
        errors.SupportSetError,
        HTTPStatus.CONFLICT,
        "Choose another name, or leave it out; POST /v1/supports/{id} adds to a set.",
    ),
    (
        errors.NoSupportError,
        HTTPStatus.CONFLICT,
        "Show what the label is: POST /v1/supports/{id} with image, mask and label.",
    ),
    (
        errors.BusyError,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Send the request again later; the header Retry-After says in how many seconds.",
    ),
    (
        errors.MaskError,
        _UNUSABLE,
        "Send a mask of the picture's own size as PNG: 0 is background, another number the object, 255 beside it "
        "unknown; or a box of pixels inside the picture.",
    ),
    (
        errors.MemoryShortageError,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Send a smaller picture, or the same one when the server has less to do.",
    ),
    (errors.ImageError, _UNUSABLE, "Send the whole file of a picture, as JPEG or PNG."),
    (errors.LabelError, _UNUSABLE, "Ask for labels that the set has: GET /v1/supports/{id} lists them."),
    (
        errors.RequestError,
        _UNUSABLE,
        "Correct the field that the message names: GET /v1/openapi.json lists all fields.",
    ),
    (
        errors.SupportError,
        HTTPStatus.CONFLICT,
        "Make the set anew from its pictures: DELETE /v1/supports/{id}, then POST /v1/supports.",
    ),
    (
        errors.OutputError,
        HTTPStatus.INSUFFICIENT_STORAGE,
        "Tell whoever runs the server that its folder of sets cannot be written.",
    ),
    (errors.MissingDependencyError, HTTPStatus.NOT_IMPLEMENTED, "Have the package installed on the server."),
)
_OTHER = (_UNUSABLE, "Change what the message names.")
RETRY_SECONDS = 2


def answer(status: int, code: str, message: str, cure: str) -> JSONResponse:
    """An error as JSON, as :class:`iir_sdk.web.api.messages.ErrorOut` says."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse({"code": code, "message": message, "cure": cure}, status, headers)


def answer_to(error: IirError) -> JSONResponse:
    """An error of the kinds that users cause."""
    status, cure = next(((s, c) for kind, s, c in _OF_KINDS if isinstance(error, kind)), _OTHER)
    return answer(status, type(error).__name__, str(error), cure)


def invalid(problems: Sequence[Any]) -> RequestError:
    """What pydantic found wrong with fields, in a line; without the values, which may be whole files."""
    lines = []
    for problem in problems[:5]:
        # Of the kinds that a field may be, pydantic adds their names, which say nothing to whoever sent it.
        place = ".".join(str(part) for part in problem["loc"] if isinstance(part, int) or part in _FIELDS)
        lines.append(f"{place or 'the request'}: {problem['msg'].removeprefix('Value error, ')}")
    return RequestError("; ".join(dict.fromkeys(lines)) + ".")


def answer_errors_of(app: FastAPI) -> None:
    """Let every error of an application, whoever causes it, be answered as documented."""

    async def of_iir(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, IirError)
        return answer_to(error)

    async def of_fields(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, (RequestValidationError, ValidationError))
        return answer_to(invalid(error.errors()))

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        cure = "GET /v1/openapi.json lists the paths, their methods and their fields."
        return answer(error.status_code, "RequestError", f"{request.method} {request.url.path}: {error.detail}.", cure)

    async def of_ours(request: Request, error: Exception) -> JSONResponse:
        # The log tells whoever runs the server; whoever asked learns nothing of its insides.
        _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(
            500, "InternalError", "the server failed at this request.", "Tell whoever runs it: its log says why."
        )

    app.add_exception_handler(IirError, of_iir)
    app.add_exception_handler(RequestValidationError, of_fields)
    app.add_exception_handler(ValidationError, of_fields)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, of_ours)
