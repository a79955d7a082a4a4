"""``iir-sdk serve`` as a user starts and ends it: a picture's mask, and nothing that is left of it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from iir_sdk.demo.job import read_jobs
from tests.lowest_iou import LOWEST_IOU

pytest.importorskip("ray", reason="the extra ray")

COINS = next(job for job in read_jobs() if job.name == "coins")
START_SECONDS = 240


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """For Ray's files, with a short path, as its sockets must have."""
    folder = Path(tempfile.mkdtemp(prefix="iir", dir="/tmp" if Path("/tmp").is_dir() else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(ray_folder: Path) -> list[str]:
    """Command lines of those that were started with that folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"RAY_TMPDIR={ray_folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return lines


def test_the_command_serves_masks_and_leaves_nothing_behind(ray_folder, tmp_path):
    command = [sys.executable, "-m", "iir_sdk.cli", "serve", "--port", "0", "--sets", str(tmp_path)]
    with subprocess.Popen(
        command, env={**os.environ, "RAY_TMPDIR": str(ray_folder)}, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            assert said.startswith("http://127.0.0.1:"), said
            with httpx2.Client(base_url=said.split()[0], timeout=START_SECONDS) as http:
                assert http.get("/v1/health").status_code == 200
                files = {"image": COINS.support.read_bytes(), "mask": COINS.support_mask.read_bytes()}
                assert (
                    http.post("/v1/supports", data={"name": "coins", "label": "coin"}, files=files).status_code == 201
                )
                answer = http.post(
                    "/v1/predict",
                    data={"set": "coins"},
                    files={"image": COINS.query.read_bytes()},
                    headers={"Accept": "image/png"},
                )
            mask, truth = np.array(Image.open(io.BytesIO(answer.content))) > 0, COINS.truth()
            assert (mask & truth).sum() / (mask | truth).sum() >= LOWEST_IOU["coins"]
            assert processes_of(ray_folder)
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()
    until = time.monotonic() + 30
    while left := processes_of(ray_folder):
        assert time.monotonic() < until, left
        time.sleep(0.2)
