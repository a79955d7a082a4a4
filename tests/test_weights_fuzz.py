"""Hostile checkpoints, configurations and manifests: each loads or is an ``IirError``, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = int(os.environ.get("IIR_FUZZ_EXAMPLES", "150"))
LARGEST_GROWTH_MB = 256
TARGETS = (
    "file bytes",
    "file header",
    "file config",
    "config.json",
    "config.json bytes",
    "manifest",
    "manifest bytes",
    "any bytes as JSON",
    "entry",
)


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_weights(target):
    command = [sys.executable, "-m", "tests.fuzz_weights", target, str(EXAMPLES)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=60 + EXAMPLES, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["inputs"] >= EXAMPLES * 0.8
    assert report["peak_growth_mb"] <= LARGEST_GROWTH_MB, report
