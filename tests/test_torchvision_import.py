"""A torchvision that was built for another torch."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

# A stand-in torchvision whose import fails as the real one does without its compiled operators.
BROKEN = """
from torch import library
@library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets
loaded = True
"""


def run(code: str, folder: str) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.path.insert(0, {folder!r})\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.fixture
def broken(tmp_path) -> str:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(BROKEN)
    return str(tmp_path)


def test_the_stand_in_fails_like_the_real_one(broken):
    found = run("import torchvision", broken)
    assert found.returncode != 0
    assert "operator torchvision::nms does not exist" in found.stderr


def test_the_missing_operators_are_declared(broken):
    code = """
        from iir_sdk.torchvision_import import _declared, ensure_torchvision
        ensure_torchvision()
        import torchvision
        assert torchvision.loaded and len(_declared) == 1
        ensure_torchvision()
        assert len(_declared) == 1
    """
    found = run(code, broken)
    assert found.returncode == 0, found.stderr


def test_other_failures_are_passed_on(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("raise RuntimeError('out of cheese')")
    found = run("from iir_sdk.torchvision_import import ensure_torchvision; ensure_torchvision()", str(tmp_path))
    assert found.returncode != 0
    assert "out of cheese" in found.stderr


def test_the_real_one_imports_with_timm():
    code = "from iir_sdk.torchvision_import import ensure_torchvision; ensure_torchvision(); import timm, torchvision"
    assert run(code, ".").returncode == 0


def test_no_thread_goes_on_with_a_half_made_package(broken, tmp_path):
    (tmp_path / "torchvision/__init__.py").write_text("import time\ntime.sleep(0.2)\n" + BROKEN)
    code = """
        from concurrent.futures import ThreadPoolExecutor
        from iir_sdk.torchvision_import import ensure_torchvision
        def imported(_):
            ensure_torchvision()
            return sys.modules["torchvision"].loaded
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(imported, range(4)))
    """
    found = run(code, broken)
    assert found.returncode == 0, found.stderr
