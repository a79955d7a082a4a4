"""``iir-sdk export``: a checkpoint for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click

from iir_sdk.cli.options import PATH, WEIGHTS


@click.group()
def export() -> None:
    """Write a checkpoint for another runtime."""


@export.command()
@WEIGHTS
@click.option("--out", type=PATH, required=True, help="Folder of the graphs.")
def onnx(weights: str | None, out: Path) -> None:
    """Write three ONNX graphs, both encoders and the query predictor, and compare them with PyTorch."""
    from iir_sdk.engines.onnx.export import export_onnx
    from iir_sdk.engines.onnx.export_folder import GRAPHS, OPSET
    from iir_sdk.weights.entry import EXPORT_RECORD
    from iir_sdk.weights.manifest import read_json
    from iir_sdk.weights.resolve import load_checkpoint

    export_onnx(load_checkpoint(weights), out)
    for name in GRAPHS:
        click.echo(f"{out / name}: {(out / name).stat().st_size / 1e6:.1f} MB, opset {OPSET}")
    difference = read_json(out / EXPORT_RECORD)["against_torch"]
    click.echo(
        f"against PyTorch on the demo's pictures: mask IoU at least {difference['mask_iou']:.4f}, "
        f"probability differs by at most {difference['probability_difference']:.1e}"
    )
    click.echo(f"FewShotSegmenter({str(out)!r}, backend='onnxruntime') or backend='openvino' loads it")
