"""Times what users wait for, as ratios within one run: ``python benchmarks/speed.py --out benchmarks/results``."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import click
import processes
import torch
from interleaved import medians
from peers import peer_rows
from rows import Scene, growth_rows, runtime_rows, settings_rows
from speed_report import draw, markdown

from iir_sdk import __version__


def machine(threads: int) -> str:
    """What it was measured on."""
    cpu = Path("/proc/cpuinfo")
    model = platform.processor() or platform.machine()
    if cpu.exists():
        named = [line for line in cpu.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = named[0].split(":")[1].strip() if named else model
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{model} ({capability}), {threads} threads, torch {torch.__version__}, iir_sdk {__version__}"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of speed.json, .md and .png.")
@click.option("--repeats", default=15, show_default=True)
@click.option("--peer-repeats", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--predictions", default=0, help="How many for the memory's growth; 0 leaves it out (5000 for the bar).")
def main(out: Path, repeats: int, peer_repeats: int, threads: int, predictions: int) -> None:
    """Run all rows, print the table and write it."""
    torch.set_num_threads(threads)
    scene = Scene()
    plain = scene.segmenter()
    rows = {**settings_rows(scene, plain), **runtime_rows(scene), **growth_rows(scene, plain)}
    ms = medians(rows, repeats, warmup=3)
    peers = medians(peer_rows(scene), peer_repeats, warmup=1)
    left_out = [
        reason
        for name, reason in (
            ("predict, bf16", "bf16, which this CPU only emulates, many times slower than float32"),
            ("predict, ONNX Runtime", "ONNX Runtime, which is not installed (extra onnx)"),
            ("predict, OpenVINO", "OpenVINO, which is not installed (extra openvino)"),
        )
        if name not in ms
    ]
    if not peers:
        left_out.append("SegGPT and CLIPSeg, since transformers is not installed (extra bench)")
    started = processes.measure(scene.job, 5)
    document = {
        "machine": machine(threads),
        "milliseconds": ms | peers,
        "seconds": started.seconds,
        "peak_mb": started.peak_megabytes,
        "kept_mb": processes.kept_megabytes(plain),
        "growth_mb": processes.memory_growth(plain, predictions) if predictions > 200 else None,
        "predictions": predictions,
        "left_out": left_out,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "speed.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / "speed.md").write_text(markdown(document), encoding="utf-8")
    draw(document, out / "speed.png")
    click.echo(markdown(document))


if __name__ == "__main__":
    main()
