"""The API beside the page: behind the same door, with errors of its own form."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from iir_sdk import FewShotSegmenter
from iir_sdk.web.api.app import api_app
from iir_sdk.web.api.support_sets import SupportSets
from iir_sdk.web.server.app import create_app
from iir_sdk.web.server.door import Door

NO_DESK: Any = None  # no route of the page is asked


@pytest.fixture
def client(tiny_segmenter: FewShotSegmenter) -> TestClient:
    app = create_app(NO_DESK, Door("0.0.0.0", "secret"), {"/v1": api_app(SupportSets(tiny_segmenter))})
    return TestClient(app, raise_server_exceptions=False)


def test_the_api_lies_beside_the_page(client):
    shown = {"Authorization": "Bearer secret"}
    assert client.get("/v1/health", headers=shown).json()["status"] == "ready"
    assert client.get("/v1/health", auth=("anybody", "secret")).status_code == 200
    assert "<html" in client.get("/", headers=shown).text
    document = client.get("/v1/openapi.json", headers=shown).json()
    assert document["servers"] == [{"url": "/v1"}] and "/predict" in document["paths"]
    assert client.get("/docs", headers=shown).status_code == 404


def test_refusals_have_the_form_of_all_errors(client):
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ):
        answer = client.get("/v1/health", headers=headers)
        assert answer.status_code == status and set(answer.json()) == {"code", "message", "cure"}
    answer = client.get("/v1/none", headers={"Authorization": "Bearer secret"})
    assert answer.status_code == 404 and set(answer.json()) == {"code", "message", "cure"}
