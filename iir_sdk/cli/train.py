"""``iir-sdk bank``, ``train`` and ``pretrain``."""

from __future__ import annotations

from pathlib import Path

import click

from iir_sdk.cli.options import (
    BACKBONE_WEIGHTS,
    BANK,
    BASE_LEARNER,
    CUTOUTS,
    DATA,
    DEVICE,
    INIT,
    LEAVE_OUT,
    ONLY,
    PARTS,
    PATH,
    RECIPE,
    RECIPE_OF_INIT,
    WORKERS,
)


@click.command()
@RECIPE_OF_INIT
@DATA
@CUTOUTS
@INIT
@click.option("--out", type=PATH, required=True, help="Folder of the bank.")
@click.option("--resume", is_flag=True, help="Go on with the filling in --out.")
@BACKBONE_WEIGHTS
@DEVICE
@WORKERS
def bank(
    recipe: str | None,
    overrides: tuple[str, ...],
    data: Path,
    cutouts: Path | None,
    init: str | None,
    out: Path,
    resume: bool,
    backbone_weights: Path | None,
    device: str,
    workers: int,
) -> None:
    """Keep the features of RECIPE's augmented views (default: duo) in a folder, for train and ablate.

    With --init of those weights' backbone, for runs that start from them.

    It holds views of all classes; runs with --exclude-fold use those only that none of the fold's masks went into.

    Several processes, on machines that see the same --out: torchrun --nproc-per-node 2 -m iir_sdk.cli bank ...
    """
    from iir_sdk.training.fine_tuning import chosen_recipe
    from iir_sdk.training.run.processes import joined_processes
    from iir_sdk.training.start import TrainedParts, fill_bank
    from iir_sdk.weights.resolve import load_checkpoint

    with joined_processes(device) as processes:
        with processes.together():
            start = load_checkpoint(init) if init else None
            config = chosen_recipe(recipe, overrides, start)
        count = fill_bank(
            config,
            data,
            out,
            cutouts=cutouts,
            parts=TrainedParts(backbone_weights, init=start),
            device=device,
            workers=workers,
            resume=resume,
            processes=processes,
        )
        if processes.first:
            click.echo(f"kept the features of {count} views in {out}")


@click.command()
@RECIPE_OF_INIT
@DATA
@CUTOUTS
@INIT
@BANK
@click.option("--out", type=PATH, required=True, help="Folder of the run.")
@click.option("--exclude-fold", type=click.IntRange(0, 3), help="Leave out the masks of this COCO fold's classes.")
@LEAVE_OUT
@ONLY
@click.option("--validation", type=PATH, help="Sets to validate on, where the recipe does; benchmarks have their own.")
@PARTS
@BASE_LEARNER
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@DEVICE
@WORKERS
def train(
    recipe: str | None,
    overrides: tuple[str, ...],
    data: Path,
    cutouts: Path | None,
    init: str | None,
    bank_file: Path | None,
    out: Path,
    exclude_fold: int | None,
    leave_out: tuple[str, ...],
    only: tuple[str, ...],
    validation: Path | None,
    backbone_weights: Path | None,
    classifier: Path | None,
    base_learner: Path | None,
    resume: bool,
    device: str,
    workers: int,
) -> None:
    """Train a decoder by RECIPE: a .toml file or a name, as pascal; default: duo, the embedded weights'.

    With --init it starts from trained weights, and RECIPE is finetune: a few minutes on a few dozen pictures.

    Several processes: torchrun --nproc-per-node 2 -m iir_sdk.cli train ...
    """
    from iir_sdk.data.folder import coco_fold
    from iir_sdk.training.fine_tuning import chosen_recipe
    from iir_sdk.training.run.processes import joined_processes
    from iir_sdk.training.start import TrainedParts, build_trainer
    from iir_sdk.weights.resolve import load_checkpoint

    start = load_checkpoint(init) if init else None
    config = chosen_recipe(recipe, overrides, start)
    novel = () if exclude_fold is None else coco_fold(exclude_fold)
    with joined_processes(device) as processes:
        trainer = build_trainer(
            config,
            data,
            out,
            cutouts=cutouts,
            bank=bank_file,
            novel=novel,
            leave_out=leave_out,
            only=only,
            validation=validation,
            parts=TrainedParts(backbone_weights, classifier, base_learner, start),
            device=device,
            workers=workers,
            processes=processes,
        )
        trainer.run(resume=resume)
        path = trainer.export()
        if processes.first:
            click.echo(f"trained {trainer.step} steps; the checkpoint is {path}")
            if config.model.presence:
                click.echo(
                    "its score and confidence were fitted to the weights that it started from; fit them anew: "
                    f"iir-sdk calibrate {out} --data {data}"
                )


@click.command()
@RECIPE
@DATA
@click.option("--part", type=click.Choice(["base-learner", "classifier"]), required=True, help="What to train.")
@click.option("--out", type=PATH, required=True, help="File to write, .safetensors.")
@click.option("--steps", type=click.IntRange(1), default=5000, show_default=True)
@PARTS
@DEVICE
@WORKERS
def pretrain(
    recipe: str,
    overrides: tuple[str, ...],
    data: Path,
    part: str,
    out: Path,
    steps: int,
    backbone_weights: Path | None,
    classifier: Path | None,
    device: str,
    workers: int,
) -> None:
    """Train, by RECIPE (default: duo), what the decoder starts from: base learner, or classifier."""
    from iir_sdk.training.config import find_recipe, read_recipe
    from iir_sdk.training.start import TrainedParts, run_pretraining

    config = read_recipe(find_recipe(recipe), overrides)
    parts = TrainedParts(backbone_weights, classifier)
    losses = run_pretraining(part, config, data, out, steps=steps, parts=parts, device=device, workers=workers)
    click.echo(f"loss {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last; the {part} is {out}")
