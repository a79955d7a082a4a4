"""``iir-sdk web``: what is served beside the page."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from iir_sdk.cli.main import main
from iir_sdk.demo.job import read_jobs
from iir_sdk.web.server import serve

JOB = read_jobs()[0]


@pytest.fixture
def mounted(monkeypatch) -> dict[str, Any]:
    """The applications that would be served, once the command ran."""
    applications: dict[str, Any] = {}
    monkeypatch.setattr(serve, "serve", lambda desk, *, mounted, **options: applications.update(mounted))
    return applications


def test_preloaded_sets_and_label_studio(tmp_path, mounted, tiny_segmenter, tiny_checkpoint, monkeypatch):
    tiny_segmenter.add_support(JOB.support, JOB.support_mask, "coin")
    tiny_segmenter.save_supports(tmp_path / "coins.safetensors")
    (tmp_path / "photos").mkdir()
    shutil.copy(JOB.query, tmp_path / "photos")
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    arguments = ["web", str(tmp_path / "photos"), "--weights", str(tiny_checkpoint), "--device", "cpu"]
    arguments += ["--supports", str(tmp_path / "coins.safetensors"), "--label-studio", "http://127.0.0.1:1"]
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 0, ran.output
    assert set(mounted) == {"/v1", "/label-studio"}
    (listed,) = TestClient(mounted["/v1"]).get("/supports").json()["sets"]
    assert (listed["id"], listed["preloaded"]) == ("coins", True)
    config = (
        "<View><Image name='i' value='$i'/><BrushLabels name='b' toName='i'><Label value='coin'/></BrushLabels></View>"
    )
    # Label Studio does not answer, and the file's supports serve.
    asked = {"project": "1.2", "schema": config}
    assert TestClient(mounted["/label-studio"]).post("/setup", json=asked).json() == {"model_version": "tiny-supports"}


def test_what_is_no_address_is_said(tmp_path, mounted, tiny_checkpoint):
    arguments = ["web", str(tmp_path), "--weights", str(tiny_checkpoint), "--label-studio", "localhost:8080"]
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 1 and "http://localhost:8080" in ran.output and not mounted
