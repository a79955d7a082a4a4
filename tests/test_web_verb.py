"""``iir-sdk web`` as users start and stop it."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request

import numpy as np
from PIL import Image

from tests.command import output_of
from tests.conftest import draw_scene


def test_it_says_where_it_is_serves_one_project_once_and_stops_quietly_with_pages_open(tmp_path, tiny_checkpoint):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(draw_scene(np.random.default_rng(0))[0]).save(photos / "a.png")
    words = ["web", str(photos), "--no-open", "--port", "0", "--weights", str(tiny_checkpoint), "--threads", "1"]
    command = [sys.executable, "-m", "iir_sdk", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        line = server.stdout.readline()
        address = line.split()[0]
        assert address.startswith("http://127.0.0.1:") and str(tmp_path / "photos.iir-project") in line
        with urllib.request.urlopen(f"{address}api/events") as listening:
            assert listening.readline() == b"event: project\n"
            second = output_of(*words, code=1)
            assert "another server has" in second and "--project" in second
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0
        assert server.stderr.read() == ""
    assert [place.name for place in photos.iterdir()] == ["a.png"]


def test_mistakes_are_told_before_anything_is_made(tmp_path, tiny_checkpoint):
    weights = ["--weights", str(tiny_checkpoint), "--no-open"]
    assert "no folder" in output_of("web", tmp_path / "none", *weights, code=1)
    (tmp_path / "empty").mkdir()
    assert "no picture" in output_of("web", tmp_path / "empty", *weights, code=1)
    assert [place.name for place in tmp_path.iterdir()] == ["empty"]
