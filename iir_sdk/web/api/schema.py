"""The OpenAPI document: requests that come as JSON or as forms have both, which FastAPI does not find out by itself."""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from iir_sdk.web.api.messages import ErrorOut
from iir_sdk.web.api.reading import FORM, JSON

_REF = "#/components/schemas/{model}"

ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorOut, "description": "There is no such set."},
    409: {"model": ErrorOut, "description": "A name is taken, or a label has no support."},
    413: {"model": ErrorOut, "description": "Beyond a limit, see /v1/health."},
    422: {"model": ErrorOut, "description": "A field, picture or mask cannot be used."},
    503: {"model": ErrorOut, "description": "Too much to do; Retry-After says when to ask again."},
}
"""What requests that send something may be answered."""

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: ERRORS[404]}


def body(json: type[BaseModel], form: type[BaseModel] | None = None) -> dict[str, Any]:
    """What a request may send, for ``openapi_extra``."""
    kinds = {JSON: json} if form is None else {JSON: json, FORM: form}
    content = {kind: {"schema": {"$ref": _REF.format(model=model.__name__)}} for kind, model in kinds.items()}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, json: tuple[type[BaseModel], ...], forms: tuple[type[BaseModel], ...]) -> None:
    """Let an application's document define what :func:`body` refers to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                servers=app.servers,
            )
            schemas = document["components"]["schemas"]
            _, of_json = models_json_schema([(model, "validation") for model in json], ref_template=_REF)
            _, of_forms = models_json_schema([(model, "validation") for model in forms], ref_template=_REF)
            schemas.update(of_json["$defs"])
            schemas.update({model.__name__: _of_files(of_forms["$defs"][model.__name__]) for model in forms})
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _of_files(schema: dict[str, Any]) -> dict[str, Any]:
    """A form's schema: what is base64 in JSON is a file there."""
    schema = copy.deepcopy(schema)
    for field in schema["properties"].values():
        for kind in (field, *field.get("anyOf", ())):
            if kind.pop("contentEncoding", None):
                kind.pop("examples", None)
                kind["format"] = "binary"
    return schema
