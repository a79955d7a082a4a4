"""What is timed as whole processes: starting, importing, the first mask, and the memory they take."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import Job

COLD_START = """
import sys
from pathlib import Path
from iir_sdk import FewShotSegmenter
segmenter = FewShotSegmenter(device="cpu", backend=sys.argv[4])
segmenter.add_support(*sys.argv[1:3])
segmenter.predict(sys.argv[3]).mask
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""
IMPORTS = """
from iir_sdk.torchvision_import import ensure_torchvision
import torch
ensure_torchvision()
import timm
"""
LOAD = """
import time
import torch
from iir_sdk.torchvision_import import ensure_torchvision
ensure_torchvision()
import timm
from iir_sdk import FewShotSegmenter
started = time.perf_counter()
FewShotSegmenter(device="cpu")
print(time.perf_counter() - started)
"""


@dataclass(frozen=True)
class Processes:
    """Medians over processes.

    Attributes:
        seconds: from start to end, by row; of ``load checkpoint`` what the process itself measured.
        peak_megabytes: largest resident memory, by row.
    """

    seconds: dict[str, float]
    peak_megabytes: dict[str, float]


def measure(job: Job, repeats: int) -> Processes:
    """Start Python, import, ask for help, load, and go from nothing to the first mask."""
    pictures = [str(job.support), str(job.support_mask), str(job.query)]
    rows = {
        "python": ["-c", "pass"],
        "import iir_sdk": ["-c", "import iir_sdk"],
        "iir-sdk --help": ["-m", "iir_sdk.cli", "--help"],
        "import torch, timm": ["-c", IMPORTS],
        "load checkpoint": ["-c", LOAD],
        "cold start": ["-c", COLD_START, *pictures, "torch"],
    }
    for name, backend in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        if importlib.util.find_spec(backend):
            rows[f"cold start, {name}"] = ["-c", COLD_START, *pictures, backend]
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    peaks: dict[str, list[float]] = {name: [] for name in rows if name.startswith("cold start")}
    for turn in range(repeats + 1):
        for name, arguments in rows.items():
            took, printed = _run(arguments)
            # The first round finds the disk's cache cold, and exports what ONNX Runtime needs.
            if turn:
                seconds[name].append(float(printed) if name == "load checkpoint" else took)
            if turn and name in peaks:
                peaks[name].append(float(printed))
    return Processes(
        {name: statistics.median(values) for name, values in seconds.items()},
        {name: statistics.median(values) for name, values in peaks.items()},
    )


def _run(arguments: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout


def memory_growth(segmenter: FewShotSegmenter, predictions: int) -> float:
    """Megabytes that this process grows by over predictions of mixed sizes, after the first 200 (Linux)."""
    rng = np.random.default_rng(0)
    after_first = 0.0
    for i in range(predictions):
        height, width = rng.integers(64, 700, 2)
        segmenter.predict(rng.integers(0, 255, (height, width, 3)).astype(np.uint8))
        if i == 199:
            after_first = _resident_megabytes()
    return _resident_megabytes() - after_first


def kept_megabytes(segmenter: FewShotSegmenter) -> tuple[float, float]:
    """A cached support's size in memory, with the copy of it that predicting reads, and on disk."""
    support = segmenter.supports[0]
    ready = segmenter.engine.prepare([segmenter.task([support.state])])
    copied = sum(tensor.nbytes for group in ready for tensor in group.state.arrays().values())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "support.safetensors"
        segmenter.save_supports(file)
        return (support.nbytes + copied) / 1e6, file.stat().st_size / 1e6


def _resident_megabytes() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
