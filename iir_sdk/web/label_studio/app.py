"""Label Studio's protocol for backends: ``/health``, ``/setup``, ``/predict`` and what it says without an answer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

import iir_sdk
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.problems import answer_errors_of
from iir_sdk.web.api.reading import BodyLimit
from iir_sdk.web.api.worker import Worker
from iir_sdk.web.label_studio.backend import Backend

_LONGEST = 95.0
"""Seconds; Label Studio waits for 100."""
_MOST_TASKS = 10_000


class _Message(BaseModel):
    """What Label Studio sends; its versions add fields."""

    model_config = ConfigDict(extra="ignore")


class SetupIn(_Message):
    """Of ``/setup``."""

    project: str = Field(max_length=64)
    interface: str = Field(alias="schema")
    access_token: str | None = Field(default=None, max_length=4096)


class PredictIn(_Message):
    """Of ``/predict``."""

    tasks: list[dict[str, Any]] = Field(max_length=_MOST_TASKS)
    project: str = Field(max_length=64)
    label_config: str


def label_studio_app(backend: Backend, limits: Limits | None = None) -> FastAPI:
    """An application to mount at ``/label-studio``, whose address is the backend's in Label Studio."""
    limits = limits or Limits()
    app = FastAPI(title="iir-sdk for Label Studio", version=iir_sdk.__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, most=limits.body_bytes)
    answer_errors_of(app)
    worker = Worker(limits.threads, limits.waiting, _LONGEST)

    @app.get("/health")
    @app.get("/", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "iir-sdk"}

    @app.post("/setup")
    async def setup(asked: SetupIn) -> dict[str, str]:
        call = lambda: backend.setup(asked.project, asked.interface, asked.access_token or "")  # noqa: E731
        return {"model_version": await worker.run(call)}

    @app.post("/predict")
    async def predict(asked: PredictIn) -> dict[str, Any]:
        results = await worker.run(lambda: backend.predict(asked.project, asked.label_config, asked.tasks))
        return {"results": results, "model_version": backend.version(asked.project)}

    @app.get("/versions")
    async def versions(project: str = "") -> dict[str, list[str]]:
        # Label Studio 1.23 does not say of which.
        if not project:
            return {"versions": backend.versions}
        version = backend.version(project)
        return {"versions": [] if version is None else [version]}

    # Annotations are read at every setup: what Label Studio tells of them, and its wish to train, need nothing more.
    @app.post("/webhook")
    @app.post("/train")
    async def told() -> dict[str, str]:
        return {"status": "ok"}

    return app
