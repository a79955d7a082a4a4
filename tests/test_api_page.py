"""The examples of docs/api.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import PICTURES
from iir_sdk.web.api.app import api_app
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.support_sets import SupportSets
from tests.served import served

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")


def examples(language: str) -> str:
    (example,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return example


@pytest.fixture
def place(tmp_path, monkeypatch):
    for file in PICTURES.glob("*_*.*"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(embedded):
    app = Starlette()
    app.mount("/v1", api_app(SupportSets(embedded)))
    with served(app) as address:
        yield address


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl(place, server, embedded):
    script = "set -e\n" + examples("bash").replace("curl -s", "curl -s --fail-with-body -w '\\n'")
    run = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "SERVER": server}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert '"counterexamples":1' in run.stdout and '"rle":{' in run.stdout
    segmenter = FewShotSegmenter(embedded.engine)
    segmenter.load_supports("coins.safetensors")
    mask = segmenter.predict("coins_query.jpg", absent_below=0).mask
    assert np.array_equal(np.asarray(Image.open("labels.png")), mask)


def test_requests(place, server, capsys):
    pytest.importorskip("requests")
    exec(compile(examples("python"), "api.md", "exec"), {"SERVER": server})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["coin", "flag"]
    assert float(printed[0].split()[1]) > 0.5 and int(printed[0].split()[2]) > 1000


def test_the_limits_are_the_ones_it_says():
    limits = Limits()
    size = f"{limits.body_bytes >> 20} MB, {limits.pixels // 10**6} million pixels a picture, or {limits.examples} supp"
    work = f"{limits.threads + limits.waiting} requests at work or waiting, or no answer within {limits.seconds:g} sec"
    assert all(words in PAGE for words in (size, work, f"at most {limits.set_bytes >> 30} GB"))
