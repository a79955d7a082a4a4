"""Accuracy against time: ``python benchmarks/trade.py --out benchmarks/results`` plots every scored decoder.

A point's mIoU comes from its evidence, its time is measured here, on a network of the same architecture: time does not
depend on the weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
from interleaved import medians
from rows import Scene

from iir_sdk.model.iir import IIR
from iir_sdk.training.config import TrainingConfig
from iir_sdk.weights.checkpoint_file import read_checkpoint, save_checkpoint

EVIDENCE = Path(__file__).parent / "evidence"

RETIRED_OF_MODEL = {"classifier", "companion_priors", "decoder", "joint_priors", "late_features", "shared_projection"}
RETIRED_OF_MODEL |= {"shot_fusion", "self_support", "dictionary"}
"""Settings of architectures that follow from the preset since, or that none has any more."""


def _is_light(model: dict[str, Any]) -> bool:
    """Whether an architecture of the evidence is the light preset; the mixtures that were tried are built no more."""
    if model.get("dictionary") or model.get("self_support"):
        return False
    return bool(model.get("preset") == "light" or (model.get("joint_priors") and not model.get("late_features")))


def scored_runs(score: str) -> list[dict[str, Any]]:
    """Runs whose evidence holds a score file of that name, with recipe and mean mIoU."""
    runs = []
    for file in sorted(EVIDENCE.glob(f"*/{score}.json")):
        recipe = json.loads((file.parent / "recipe.json").read_text(encoding="utf-8"))
        miou = json.loads(file.read_text(encoding="utf-8"))["mean_miou"]
        if not _is_light(recipe["model"]):
            continue
        model = {k: v for k, v in recipe["model"].items() if k not in RETIRED_OF_MODEL}
        config = TrainingConfig.from_dict({"model": model, "preprocessing": recipe["preprocessing"]})
        runs.append({"name": file.parent.name, "config": config, "miou": miou})
    return runs


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of trade.json and trade.png.")
@click.option("--score", default="fold3", show_default=True, help="Which score of the evidence.")
@click.option("--repeats", default=15, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(out: Path, score: str, repeats: int, threads: int) -> None:
    """Time one prediction by each scored architecture, and draw mIoU over it."""
    torch.set_num_threads(threads)
    scene, runs, rows = Scene(), scored_runs(score), {}
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        segmenter = scene.segmenter(weights=_untrained(run["config"], out / "untrained.safetensors"))
        rows[_backbone_row(run)] = scene.backbone(segmenter)
        rows[run["name"]] = scene.predicting(segmenter)
    ms = medians(rows, repeats, warmup=3)
    table = [
        {"name": r["name"], "miou": r["miou"], "milliseconds": ms[r["name"]], "backbone": ms[_backbone_row(r)]}
        for r in runs
    ]
    document = {"score": score, "runs": table}
    (out / "trade.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw(document, out / "trade.png")
    for row in table:
        over = row["milliseconds"] / row["backbone"]
        click.echo(
            f"{row['name']:20} mIoU {100 * row['miou']:5.1f}   {row['milliseconds']:6.1f} ms   {over:.2f} x backbone"
        )


def _backbone_row(run: dict[str, Any]) -> str:
    config = run["config"]
    return f"{config.model.backbone} at {config.preprocessing.size} px"


def _untrained(config: TrainingConfig, file: Path) -> Any:
    try:
        save_checkpoint(IIR(config.model), config.preprocessing, file)
        return read_checkpoint(file)
    finally:
        file.unlink(missing_ok=True)


def draw(document: dict[str, Any], path: Path) -> None:
    """One point a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    for rank, run in enumerate(sorted(document["runs"], key=lambda run: run["miou"])):
        point = (run["milliseconds"], 100 * run["miou"])
        axes.plot(*point, "o")
        # Names of neighbours in height lie on different sides of their points, so that they do not touch.
        side = {"xytext": (6, -4)} if rank % 2 else {"xytext": (-6, -4), "ha": "right"}
        axes.annotate(run["name"], point, textcoords="offset points", **side)
    axes.set_xlabel("milliseconds of one prediction")
    axes.set_ylabel(f"mIoU, {document['score']}")
    axes.margins(0.45, 0.2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
