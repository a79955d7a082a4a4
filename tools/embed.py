"""Puts a trained run into the package: the checkpoint file, its entry in the manifest and its model card.

``python -m tools.embed RUN --name NAME --description TEXT --license SPDX --data SET ... --scores FILE ...``
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import click

from iir_sdk.files import write_atomically, write_text_atomically
from iir_sdk.weights.entry import EvaluationProtocol, Metric, SetMetric
from iir_sdk.weights.manifest import manifest_path, write_entry
from iir_sdk.weights.model_card import model_card
from iir_sdk.weights.resolve import embedded_file, load_checkpoint
from iir_sdk.weights.saving import described


def read_metric(title: str, scores_file: Path) -> Metric:
    """The manifest's record of a file that ``iir-sdk evaluate --json`` wrote.

    Raises:
        WeightsError: a value is out of its range.
    """
    document = json.loads(scores_file.read_text(encoding="utf-8"))
    sets = tuple(SetMetric(s["name"], round(s["miou"], 6), round(s["fb_iou"], 6)) for s in document["sets"])
    first = document["sets"][0]
    how = first["protocol"]
    protocol = EvaluationProtocol(
        episodes=first["episodes"],
        shots=how["shots"],
        seeds=tuple(how["seeds"]),
        min_share=how["min_share"],
        input_pixels=how["input_pixels"],
        scored_at=how["scored_at"],
    )
    return Metric(title, round(document["mean_miou"], 6), sets, protocol, how["sha256"])


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--name", required=True)
@click.option("--description", required=True)
@click.option("--license", "license_id", required=True, help="SPDX identifier.")
@click.option("--license-note", default="", help="One line on the licence.")
@click.option("--data", multiple=True, required=True, help="A training set; repeat.")
@click.option("--scores", multiple=True, type=(str, click.Path(path_type=Path)), help="Title and file; repeat.")
def main(
    run: Path,
    name: str,
    description: str,
    license_id: str,
    license_note: str,
    data: tuple[str, ...],
    scores: tuple[tuple[str, Path], ...],
) -> None:
    """Copy RUN's model.safetensors into the package, and write its manifest entry and its model card."""
    source = run / "model.safetensors"
    entry = described(load_checkpoint(source).entry, name, description, license_id, data)
    metrics = tuple(read_metric(title, file) for title, file in scores)
    entry = replace(entry, license_note=license_note, metrics=metrics, embedded=True)
    target = embedded_file(entry)
    write_atomically(target, lambda beside: shutil.copyfile(source, beside))
    write_entry(manifest_path(), entry)
    write_text_atomically(target.with_suffix(".md"), model_card(entry, entry.name))
    click.echo(f"{target}: {entry.size:,} bytes, sha256 {entry.sha256}")


if __name__ == "__main__":
    main()
