"""``iir-sdk ablate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iir_sdk.cli import options
from iir_sdk.cli.evaluate import sets_of

if TYPE_CHECKING:
    from iir_sdk.training.ablate import HeldOut
    from iir_sdk.training.config import TrainingConfig


@click.command()
@options.RECIPE
@options.DATA
@click.option("--test", type=options.PATH, help="A set, or a folder of sets, to score on; a benchmark has its own.")
@options.CUTOUTS
@options.BANK
@click.option("--out", type=options.PATH, required=True, help="Folder of the runs and the table.")
@click.option(
    "--exclude-fold",
    "folds",
    multiple=True,
    type=click.IntRange(0, 3),
    help="Train without this COCO fold's masks and score on it; repeat for the mean over several.",
)
@options.LEAVE_OUT
@click.option("--variant", "names", multiple=True, help="Row; repeat. Default: all that fit the recipe.")
@click.option("--steps", type=int, help="Budget of each run; default: the recipe's.")
@options.PARTS
@options.BASE_LEARNER
@options.SCORING
@options.DEVICE
@options.DTYPE
@options.WORKERS
def ablate(
    recipe: str,
    overrides: tuple[str, ...],
    data: Path,
    test: Path | None,
    cutouts: Path | None,
    bank_file: Path | None,
    out: Path,
    folds: tuple[int, ...],
    leave_out: tuple[str, ...],
    names: tuple[str, ...],
    steps: int | None,
    backbone_weights: Path | None,
    classifier: Path | None,
    base_learner: Path | None,
    shots: int,
    episodes: int,
    seeds: tuple[int, ...],
    min_share: float | None,
    device: str,
    dtype: str,
    workers: int,
) -> None:
    """Train variants of RECIPE (default: duo) on one budget and write a table.

    Prior only, single and dual prototypes, cross attention, directional dropout, the other CAM form; without
    regions, cut-outs, other sets.
    """
    from iir_sdk.evaluation.evaluate import Protocol
    from iir_sdk.training.ablate import ablate as run_ablation
    from iir_sdk.training.ablate import variants_of
    from iir_sdk.training.config import find_recipe, read_recipe
    from iir_sdk.training.start import TrainedParts, build_trainer

    budget = () if steps is None else (f"steps={steps}",)
    config = read_recipe(find_recipe(recipe), (*overrides, *budget))
    parts = TrainedParts(backbone_weights, classifier, base_learner)

    def build(variant: TrainingConfig, folder: Path, novel: Sequence[str], unused: Sequence[str]) -> Any:
        """A trainer of one row's run."""
        return build_trainer(
            variant,
            data,
            folder,
            cutouts=cutouts,
            bank=bank_file,
            novel=novel,
            leave_out=(*leave_out, *unused),
            parts=parts,
            device=device,
            workers=workers,
        )

    share = (0.01 if config.dataset == "folder" else 0.0) if min_share is None else min_share
    protocol = Protocol(shots, episodes, tuple(seeds), share)
    rows = names or variants_of(config, cutouts=cutouts is not None)
    held_out = _held_out(config, data, test, folds)
    for row in run_ablation(config, rows, build, held_out, protocol, out, device=device, dtype=dtype):
        click.echo(f"{row.title:24} mIoU {100 * row.miou:5.1f}   FB-IoU {100 * row.fb_iou:5.1f}")
    click.echo(f"the table is {out / 'ablation.md'}")


def _held_out(config: TrainingConfig, data: Path, test: Path | None, folds: Sequence[int]) -> list[HeldOut]:
    """What each run of a row leaves out and is scored on."""
    from iir_sdk.data.folder import coco_fold
    from iir_sdk.training.ablate import HeldOut

    if config.dataset != "folder":
        if folds:
            raise click.UsageError(f"--exclude-fold goes with folders of one's own; here, --set fold={folds[0]}")
        return [HeldOut("", (), sets_of(test or data, config.dataset, config.fold, config.exif))]
    if test is None:
        raise click.UsageError("name sets to score on: --test FOLDER")
    if not folds:
        return [HeldOut("", (), sets_of(test, None, None, config.exif))]
    if len(set(folds)) < len(folds):
        raise click.UsageError(f"--exclude-fold {' '.join(map(str, folds))} names a fold twice.")
    return [HeldOut(f"fold{fold}", coco_fold(fold), sets_of(test, None, fold, config.exif)) for fold in folds]
