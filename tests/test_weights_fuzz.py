"""Hostile checkpoints, configurations and manifests: each loads or is an ``IirError``, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FEW = 60
EXAMPLES = int(os.environ.get("IIR_FUZZ_EXAMPLES", str(FEW)))
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


# Starting takes longer than a few inputs do; of many, each target's memory is looked at by itself.
PROCESSES = [TARGETS] if EXAMPLES <= FEW else [(target,) for target in TARGETS]


@pytest.mark.parametrize("targets", PROCESSES, ids="+".join)
def test_hostile_weights(targets):
    command = [sys.executable, "-m", "tests.fuzz_weights", str(EXAMPLES), *targets]
    limit = 120 + EXAMPLES * len(targets)
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=limit, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["target"] for report in reports] == list(targets)
    for report in reports:
        assert report["inputs"] >= EXAMPLES * 0.8, report
        assert report["peak_growth_mb"] <= LARGEST_GROWTH_MB, report
