"""Each COCO fold as new classes: ``python benchmarks/folds.py --data DATA --bank BANK --out runs/folds``.

For each fold the package's own commands train, calibrate and score in turn. Scores and weights that are there are kept,
even if the data changed; a run of another recipe is refused. Of folds that were trained elsewhere, as by
``tools/train_runs.py``, no bank is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import click

from iir_sdk import FewShotSegmenter
from iir_sdk.cli.main import main as iir_sdk
from iir_sdk.errors import IirError
from iir_sdk.training.config import TrainingConfig, find_recipe, read_recipe
from iir_sdk.weights.checkpoint_file import WEIGHTS_FILE

SEEDS = ("--seed", "0", "--seed", "1", "--seed", "2")
SCORES: dict[str, tuple[str, ...]] = {"1shot": SEEDS, "5shot": (*SEEDS, "--shots", "5"), "absent": ("--absent",)}
"""By name of the file: how ``evaluate`` is asked for it."""


def score_fold(fold: int, training: list[str], coco: Path, run: Path, dtype: str) -> None:
    """Train and calibrate without a fold's classes, and score on them, as far as that is not done."""
    missing = [name for name in SCORES if not (run / f"{name}.json").exists()]
    if not missing:
        return
    if not (run / WEIGHTS_FILE).exists():
        iir_sdk(["train", *training, "--exclude-fold", str(fold), "--out", str(run), "--resume"], standalone_mode=False)
    if not calibrated(run):
        fitting = ["--data", str(coco), "--exclude-fold", str(fold), "--episodes", "600"]
        iir_sdk(["calibrate", str(run), *fitting], standalone_mode=False)
    how = ["--data", str(coco), "--fold", str(fold), "--weights", str(run), "--dtype", dtype]
    for name in missing:
        iir_sdk(["evaluate", *how, *SCORES[name], "--json", str(run / f"{name}.json")], standalone_mode=False)


def check_recipe(run: Path, config: TrainingConfig) -> None:
    """Refuse a run of another recipe.

    Raises:
        click.UsageError: it is one.
    """
    stored = run / "recipe.json"
    if stored.exists() and not config.is_kept_as(json.loads(stored.read_text(encoding="utf-8"))):
        raise click.UsageError(f"{stored} is not the recipe that is asked for; name another --out.")


def calibrated(run: Path) -> bool:
    """Whether a trained run's scores are fitted."""
    file = run / WEIGHTS_FILE
    return file.exists() and FewShotSegmenter(file, device="cpu").model.config.presence


def row(run: Path) -> dict[str, float]:
    """A fold's figures, in [0, 1]."""
    one, five, absent = (json.loads((run / f"{name}.json").read_text(encoding="utf-8"))["sets"][0] for name in SCORES)
    return {
        "one": one["miou"],
        "one_std": one["miou_std"],
        "five": five["miou"],
        "five_std": five["miou_std"],
        "auroc": absent["auroc"],
        "ece": absent["ece"],
        "confidence_ece": absent["confidence_ece"],
    }


def table(rows: dict[int, dict[str, float]]) -> str:
    """Each fold, and the mean over them."""
    lines = [
        "mIoU over three seeds of 1000 episodes, objects of at least 1 % of the picture, at the pictures' own size.",
        "",
        "| fold | 1-shot | 5-shot | AUROC | calibration error | of the confidence |",
        "|---|---|---|---|---|---|",
    ]
    for fold, r in rows.items():
        mious = (f"{100 * r[n]:.1f} +- {100 * r[f'{n}_std']:.1f}" for n in ("one", "five"))
        lines.append(f"| {fold} | {' | '.join(mious)} | {_rest(r)} |")
    means = {name: fmean(r[name] for r in rows.values()) for name in next(iter(rows.values()))}
    lines.append(f"| mean | {100 * means['one']:.1f} | {100 * means['five']:.1f} | {_rest(means)} |")
    return "\n".join(lines) + "\n"


def _rest(r: dict[str, float]) -> str:
    return f"{r['auroc']:.3f} | {r['ece']:.3f} | {r['confidence_ece']:.3f}"


PATH = click.Path(path_type=Path)


@click.command()
@click.argument("recipe", default="duo")
@click.option("--set", "overrides", multiple=True, help="As of iir-sdk train, as convention=filtered.")
@click.option("--data", type=PATH, required=True, help="Folder of sets, one of them coco.")
@click.option("--cutouts", type=PATH, help="Folder of cut-outs.")
@click.option("--bank", type=PATH, help="What iir-sdk bank filled of them; needed to train.")
@click.option("--backbone-weights", type=PATH, help="As of iir-sdk train.")
@click.option("--fold", "folds", multiple=True, type=click.IntRange(0, 3), default=(0, 1, 2, 3), show_default=True)
@click.option("--dtype", default="auto", show_default=True)
@click.option("--out", type=PATH, required=True, help="Folder of the runs, folds.json and folds.md.")
def main(
    recipe: str,
    overrides: tuple[str, ...],
    data: Path,
    cutouts: Path | None,
    bank: Path | None,
    backbone_weights: Path | None,
    folds: tuple[int, ...],
    dtype: str,
    out: Path,
) -> None:
    """Train RECIPE once for each fold, score it on the fold's classes, and write the table."""
    if bank is None and (lacking := [fold for fold in folds if not (out / f"fold{fold}" / WEIGHTS_FILE).exists()]):
        raise click.UsageError(
            f"{out / f'fold{lacking[0]}'} is not trained: pass --bank to train it, or --fold to skip it."
        )
    given = {"--data": data, "--bank": bank, "--cutouts": cutouts, "--backbone-weights": backbone_weights}
    training = [recipe, *(word for name, value in given.items() if value for word in (name, str(value)))]
    training += [word for override in overrides for word in ("--set", override)]
    try:
        config = read_recipe(find_recipe(recipe), overrides)
        for fold in folds:
            check_recipe(out / f"fold{fold}", config)
    except IirError as error:
        raise click.UsageError(str(error)) from error
    for fold in folds:
        score_fold(fold, training, data / "coco", out / f"fold{fold}", dtype)
    rows = {fold: row(out / f"fold{fold}") for fold in folds}
    (out / "folds.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (out / "folds.md").write_text(table(rows), encoding="utf-8")
    click.echo(table(rows))


if __name__ == "__main__":
    main()
