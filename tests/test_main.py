"""The ways to start the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["iir_sdk", "iir_sdk.cli"])
def test_the_package_is_its_command(module):
    """The second is what ``torchrun -m`` starts."""
    command = [sys.executable, "-m", module, "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "evaluate" in run.stdout and "demo" in run.stdout
