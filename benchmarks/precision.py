"""What faster settings cost in accuracy: ``python benchmarks/precision.py --data TEST --out benchmarks/results``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rows import RUNTIMES

from iir_sdk import FewShotSegmenter
from iir_sdk.data.dataset import FewShotDataset
from iir_sdk.data.episodes import large_enough, sample_episodes
from iir_sdk.data.folder import read_picture_sets
from iir_sdk.engines.devices import computes_in_bfloat16
from iir_sdk.errors import IirError
from iir_sdk.evaluation.metrics import SegmentationScore

REFERENCE = "PyTorch float32"


def segmenters() -> dict[str, FewShotSegmenter]:
    """The default, and every faster way to run it that this machine has."""
    settings: dict[str, dict[str, Any]] = {REFERENCE: {}}
    if computes_in_bfloat16(torch.device("cpu")):
        settings["PyTorch bf16"] = {"dtype": "bfloat16"}
    opened = {name: FewShotSegmenter(device="cpu", **chosen) for name, chosen in settings.items()}
    for name, chosen in RUNTIMES.items():
        try:
            opened[name] = FewShotSegmenter(**chosen)  # type: ignore[arg-type]
        except IirError as error:
            click.echo(f"without {name}: {error}")
    return opened


def masks(
    pictures: FewShotDataset, ways: dict[str, FewShotSegmenter], episodes: int
) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
    """Class, labels in {0, 1, 255} and found masks of each 1-shot episode."""
    for episode in sample_episodes(large_enough(pictures, 0.01), shots=1, count=episodes, seed=0):
        (support,) = episode.supports
        predicted = {}
        for name, segmenter in ways.items():
            segmenter.clear_supports()
            segmenter.add_support(pictures.picture(support), pictures.mask(episode.name, support))
            predicted[name] = segmenter.predict(pictures.picture(episode.query)).mask
        yield episode.name, pictures.mask(episode.name, episode.query), predicted


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="A set, or a folder of sets.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of precision.json and .md.")
@click.option("--episodes", default=100, show_default=True, help="Of each set.")
def main(data: Path, out: Path, episodes: int) -> None:
    """Score every setting on the same episodes, print the table and write it."""
    ways, rows = segmenters(), defaultdict(list)
    for pictures in read_picture_sets(data):
        truth, alike = ({name: SegmentationScore() for name in ways} for _ in range(2))
        for label, mask, predicted in masks(pictures, ways, episodes):
            for name in ways:
                truth[name].add(label, predicted[name], mask)
                alike[name].add(label, predicted[name], predicted[REFERENCE].astype(np.uint8))
        for name in ways:
            rows[name].append((truth[name].miou, alike[name].miou))
    lines = [
        f"{episodes} episodes a set",
        "",
        "| setting | mIoU | against the default | masks' IoU with the default's |",
    ]
    lines += ["|---|---|---|---|"]
    means = {name: [100 * float(m) for m in np.mean(values, 0)] for name, values in rows.items()}
    for name, (miou, same) in means.items():
        lines.append(f"| {name} | {miou:.2f} | {miou - means[REFERENCE][0]:+.2f} | {same:.1f} |")
    out.mkdir(parents=True, exist_ok=True)
    (out / "precision.json").write_text(json.dumps({"episodes": episodes, "means": means}, indent=1) + "\n", "utf-8")
    (out / "precision.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
