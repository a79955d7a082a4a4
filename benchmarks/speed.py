"""Times what users wait for, as ratios within one run: ``python benchmarks/speed.py --out benchmarks/results``.

Rows are run in turn, round after round, and their medians compared, so that a machine that slows down slows all alike.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from iir_sdk import FewShotSegmenter, __version__
from iir_sdk.demo.job import read_jobs
from iir_sdk.images import load_mask, load_picture

COLD_START = """
import sys
from iir_sdk import FewShotSegmenter
segmenter = FewShotSegmenter(device="cpu")
segmenter.add_support(*sys.argv[1:3])
segmenter.predict(sys.argv[3]).mask
"""
IMPORTS = """
from iir_sdk.torchvision_import import ensure_torchvision
import torch
ensure_torchvision()
import timm
"""


@dataclass(frozen=True)
class Bar:
    """A ratio or time that must not be exceeded."""

    title: str
    value: float
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.limit


def medians(rows: dict[str, Callable[[], object]], repeats: int, warmup: int) -> dict[str, float]:
    """Milliseconds of each row, the median over interleaved repeats."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(warmup + repeats):
        for name, run in rows.items():
            started = time.perf_counter()
            run()
            if turn >= warmup:
                times[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(of_row) for name, of_row in times.items()}


class Rows:
    """The things that are timed in this process, on one of the demo's pictures."""

    def __init__(self) -> None:
        job = next(j for j in read_jobs() if j.name == "face")
        self.picture = load_picture(job.support)
        self.mask = load_mask(job.support_mask, self.picture)
        self.query = load_picture(job.query).pixels
        self.plain = self._segmenter()

    def _segmenter(self, shots: int = 1, labels: int = 1, **settings: Any) -> FewShotSegmenter:
        segmenter = FewShotSegmenter(device="cpu", **settings)
        for label in range(labels):
            for shot in range(shots):
                # Further shots are the picture shifted, so that none is another's copy.
                pixels, mask = (np.roll(a, 7 * shot, 1) for a in (self.picture.pixels, self.mask))
                segmenter.add_support(pixels, mask, label=f"label {label}")
        return segmenter

    def _uncached(self) -> object:
        self.plain.clear_supports()
        self.plain.add_support(self.picture.pixels, self.mask)
        return self.plain.predict(self.query)

    def _many(self, count: int) -> Callable[[], object]:
        return lambda: list(self.plain.predict_many([self.query] * count, batch_size=count))

    def all(self) -> dict[str, Callable[[], object]]:
        """Rows by name; a batch's time is that of the whole batch."""
        bf16 = self._segmenter(dtype=torch.bfloat16)
        rows: dict[str, Callable[[], object]] = {
            "bare backbone": lambda: self.plain.torch_engine.taps([self.query]),
            "add_support": lambda: self.plain.encode(self.picture.pixels, self.mask),
            "uncached": self._uncached,
            "predict": lambda: self.plain.predict(self.query),
            "predict, bf16": lambda: bf16.predict(self.query),
            "bare backbone, bf16": lambda: bf16.torch_engine.taps([self.query]),
        }
        for shots in (5, 20, 50):
            rows[f"predict, {shots} shots"] = _predicting(self._segmenter(shots=shots), self.query)
        for labels in (5, 20):
            rows[f"predict, {labels} labels"] = _predicting(self._segmenter(labels=labels), self.query)
        for batch in (8, 32):
            rows[f"batch of {batch}"] = self._many(batch)
        return rows


def _predicting(segmenter: FewShotSegmenter, query: np.ndarray) -> Callable[[], object]:
    return lambda: segmenter.predict(query)


def process_seconds(arguments: list[str], repeats: int) -> float:
    """Seconds that a process takes from start to end, median."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(arguments, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def processes(repeats: int) -> dict[str, float]:
    """Seconds of starting Python, importing, asking for help, and a cold start to the first mask."""
    job = next(j for j in read_jobs() if j.name == "face")
    python = [sys.executable, "-c"]
    return {
        "python": process_seconds([*python, "pass"], repeats),
        "import iir_sdk": process_seconds([*python, "import iir_sdk"], repeats),
        "iir-sdk --help": process_seconds([sys.executable, "-m", "iir_sdk.cli", "--help"], repeats),
        "import torch, timm": process_seconds([*python, IMPORTS], repeats),
        "cold start": process_seconds(
            [*python, COLD_START, str(job.support), str(job.support_mask), str(job.query)], repeats
        ),
    }


def resident_megabytes() -> float:
    """Memory that this process holds now (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def memory_growth(segmenter: FewShotSegmenter, predictions: int) -> float:
    """Megabytes that the process grows by over predictions of mixed sizes, after the first 200."""
    rng = np.random.default_rng(0)
    after_first = 0.0
    for i in range(predictions):
        height, width = rng.integers(64, 700, 2)
        segmenter.predict(rng.integers(0, 255, (height, width, 3)).astype(np.uint8))
        if i == 199:
            after_first = resident_megabytes()
    return resident_megabytes() - after_first


def kept_megabytes(segmenter: FewShotSegmenter) -> tuple[float, float]:
    """A cached support's size in memory and on disk."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "support.safetensors"
        segmenter.save_supports(file)
        return segmenter.supports.supports[0].nbytes / 1e6, file.stat().st_size / 1e6


def bars(ms: dict[str, float], seconds: dict[str, float], kept: tuple[float, float], growth: float | None) -> list[Bar]:
    """What must hold on a CPU with two threads."""
    found = [
        Bar("predict / bare backbone", ms["predict"] / ms["bare backbone"], 1.35),
        Bar("predict / uncached", ms["predict"] / ms["uncached"], 0.55),
        Bar("50 shots / 1 shot", ms["predict, 50 shots"] / ms["predict"], 1.25),
        Bar("20 labels / 1 label", ms["predict, 20 labels"] / ms["predict"], 3),
        Bar("best setting / float32", min(ms["predict"], ms["predict, bf16"]) / ms["predict"], 0.5),
        Bar("batch of 32, per picture / 1", ms["batch of 32"] / 32 / ms["predict"], 0.7),
        Bar("cached support, memory", kept[0], 1, "MB"),
        Bar("cached support, disk", kept[1], 1, "MB"),
        Bar("import iir_sdk, beyond python", seconds["import iir_sdk"] - seconds["python"], 0.15, "s"),
        Bar("iir-sdk --help", seconds["iir-sdk --help"], 0.3, "s"),
        Bar("cold start / import torch, timm", seconds["cold start"] / seconds["import torch, timm"], 1.6),
    ]
    if growth is not None:
        found.append(Bar("memory growth", growth, 20, "MB"))
    return found


def markdown(document: dict[str, Any], found: list[Bar]) -> str:
    """The bars, and every row below."""
    lines = [document["machine"], "", "| what | measured | bar | |", "|---|---|---|---|"]
    for bar in found:
        lines.append(
            f"| {bar.title} | {bar.value:.2f} {bar.unit} | {bar.limit:g} | {'met' if bar.met else 'not met'} |"
        )
    lines += ["", "| row | ms |", "|---|---|"]
    lines += [f"| {name} | {value:.1f} |" for name, value in document["milliseconds"].items()]
    lines += ["", "| process | s |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in document["seconds"].items()]
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of speed.json and speed.md.")
@click.option("--repeats", default=15, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--predictions", default=0, help="How many for the memory's growth; 0 leaves it out (5000 for the bar).")
def main(out: Path, repeats: int, threads: int, predictions: int) -> None:
    """Run all rows, print the table and write it."""
    torch.set_num_threads(threads)
    rows = Rows()
    ms = medians(rows.all(), repeats, warmup=3)
    seconds = processes(5)
    kept = kept_megabytes(rows.plain)
    growth = memory_growth(rows.plain, predictions) if predictions > 200 else None
    machine = f"{platform.machine()}, {threads} threads, torch {torch.__version__}, iir_sdk {__version__}, float32"
    document = {"machine": machine, "milliseconds": ms, "seconds": seconds, "kept_mb": kept, "growth_mb": growth}
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(document, bars(ms, seconds, kept, growth))
    (out / "speed.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / "speed.md").write_text(table, encoding="utf-8")
    click.echo(table)


if __name__ == "__main__":
    main()
