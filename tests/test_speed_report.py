"""The benchmark's bars read the rows they name, in the right direction."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    return script("speed_report")


def script(name: str) -> ModuleType:
    # The benchmarks are scripts that import each other from their folder.
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


def test_every_recipe_of_the_evidence_is_read():
    runs = script("trade").scored_runs("test_sets")
    assert {"lite2-first-fold3", "lite0"} <= {run["name"] for run in runs}
    assert all(0 < run["miou"] < 1 for run in runs)


def document(**milliseconds: float) -> dict:
    ms = {
        "bare backbone": 100,
        "predict": 130,
        "predict, sharpened": 156,
        "uncached": 260,
        "predict, as loaded": 208,
        "predict, 5 shots": 130,
        "predict, 20 shots": 135,
        "predict, 50 shots": 143,
        "predict, 5 labels": 200,
        "predict, 20 labels": 390,
        "batch of 32": 32 * 65,
        "predict, torch.compile": 91,
        "predict, ONNX Runtime": 52,
        "batch of 32, ONNX Runtime": 32 * 39,
        "predict, OpenVINO": 60,
        "batch of 32, OpenVINO": 32 * 36,
        "SegGPT (ViT-L)": 6500,
        "CLIPSeg (ViT-B/16)": 520,
    }
    seconds = {"python": 0.02, "import iir_sdk": 0.1, "iir-sdk --help": 0.2, "import torch, timm": 2, "cold start": 3}
    return {
        "machine": "a machine",
        "milliseconds": ms | milliseconds,
        "seconds": seconds,
        "peak_mb": {"cold start": 600},
        "kept_mb": (0.3, 0.31),
        "growth_mb": 1.0,
        "predictions": 5000,
        "left_out": ["a thing"],
    }


def test_bars_are_ratios_of_the_rows(report):
    values = {bar.title: (round(bar.value, 3), bar.met) for bar in report.bars(document())}
    assert values["predict / bare backbone"] == (1.3, True)
    assert values["predict / uncached"] == (0.5, True)
    assert values["predict, sharpened / predict"] == (1.2, True)
    assert values["50 shots / 1 shot"] == (1.1, True)
    assert values["20 labels / 1 label"] == (3.0, True)
    assert values["best setting (ONNX Runtime) / the default"] == (0.4, True)
    assert values["best setting (ONNX Runtime) / as loaded, without layout and folding"] == (0.25, True)
    assert values["batch of 32, per picture / 1"] == (0.5, True)
    assert values["batch of 32, per picture / 1, both ONNX Runtime"] == (0.75, False)
    assert values["batch of 32, per picture / 1, both OpenVINO"] == (0.6, True)
    assert values["SegGPT (ViT-L) / predict"] == (50.0, True)
    assert values["import iir_sdk, beyond python's start"] == (0.08, True)
    assert values["cold start / import torch, timm"] == (1.5, True)
    assert values["memory growth, 5000 predictions"] == (1.0, True)


def test_a_bar_that_is_missed_says_so(report):
    slow = document(predict=140, **{"SegGPT (ViT-L)": 6900.0})
    missed = {bar.title for bar in report.bars(slow) if not bar.met}
    assert {"predict / bare backbone", "SegGPT (ViT-L) / predict"} <= missed
    table = report.markdown(slow)
    assert "| predict / bare backbone | 1.40 | <= 1.35 | not met |" in table
    assert "Left out here: a thing." in table
    assert "| cold start | 3.00 | 600 |" in table


def test_the_plot_is_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    report.draw(document(), tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5000
