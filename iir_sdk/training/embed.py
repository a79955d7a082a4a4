"""Puts a trained run into the package: the checkpoint file and its entry in the manifest.

``python -m iir_sdk.training.embed RUN --name NAME --description TEXT --license TEXT --data SET ... --scores FILE ...``
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from iir_sdk.atomic_write import write_atomically
from iir_sdk.weights import load_checkpoint, manifest_path

SCHEMA = 1


def manifest_entry(
    checkpoint: Path, *, name: str, description: str, license_text: str, data: Sequence[str], metrics: dict[str, Any]
) -> dict[str, Any]:
    """The manifest's record of an embedded checkpoint file.

    Raises:
        WeightsError: the file is not a checkpoint.
    """
    loaded = load_checkpoint(checkpoint)
    return {
        "name": name,
        "description": description,
        "filename": f"{name}.safetensors",
        "size": checkpoint.stat().st_size,
        "sha256": loaded.sha256,
        "embedded": True,
        "published": False,
        "repo_id": None,
        "revision": None,
        "model": loaded.model.config.to_dict(),
        "preprocessing": loaded.preprocessing.to_dict(),
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "license": license_text,
        "training_data": list(data),
        "metrics": metrics,
    }


def summary(scores_file: Path) -> dict[str, Any]:
    """Mean, score of each set and protocol of a file that ``iir-sdk evaluate --json`` wrote."""
    document = json.loads(scores_file.read_text(encoding="utf-8"))
    protocol = {k: v for k, v in document["sets"][0]["protocol"].items() if k not in ("classes", "checkpoint")}
    return {
        "mean_miou": round(document["mean_miou"], 4),
        "sets": {s["name"]: {"miou": round(s["miou"], 4), "fb_iou": round(s["fb_iou"], 4)} for s in document["sets"]},
        "episodes": document["sets"][0]["episodes"],
        "protocol": protocol,
    }


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--name", required=True)
@click.option("--description", required=True)
@click.option("--license", "license_text", required=True)
@click.option("--data", multiple=True, required=True, help="A training set; repeat.")
@click.option("--scores", multiple=True, type=(str, click.Path(path_type=Path)), help="Title and file; repeat.")
def main(
    run: Path,
    name: str,
    description: str,
    license_text: str,
    data: tuple[str, ...],
    scores: tuple[tuple[str, Path], ...],
) -> None:
    """Copy RUN's model.safetensors into the package and write its manifest entry."""
    source = run / "model.safetensors"
    metrics = {title: summary(file) for title, file in scores}
    entry = manifest_entry(
        source, name=name, description=description, license_text=license_text, data=data, metrics=metrics
    )
    target = Path(__file__).parent.parent / "checkpoints" / entry["filename"]
    write_atomically(target, lambda beside: shutil.copyfile(source, beside))
    manifest = manifest_path()
    others = [e for e in json.loads(manifest.read_text(encoding="utf-8"))["checkpoints"] if e["name"] != name]
    document = {"schema": SCHEMA, "checkpoints": [entry, *others]}
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_atomically(manifest, lambda beside: beside.write_text(text, encoding="utf-8"))
    click.echo(f"{target}: {entry['size']:,} bytes, sha256 {entry['sha256']}")


if __name__ == "__main__":
    main()
