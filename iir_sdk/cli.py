"""The ``iir-sdk`` command. Heavy modules are imported by the command that needs them, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iir_sdk.data_cli import data
from iir_sdk.errors import IirError
from iir_sdk.weights_cli import weights


class _Commands(click.Group):
    """Turns a user's error into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an ``IirError`` becomes click's own kind."""
        try:
            return super().invoke(ctx)
        except IirError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="iir-sdk")
def main() -> None:
    """Few-shot segmentation: one picture with a mask, and every other picture gets that thing masked."""


main.add_command(data)
main.add_command(weights)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("iir_demo.png"), show_default=True)
@click.option("--weights", help="Checkpoint name, file or folder; default: the embedded one.")
@click.option("--device", default="auto", show_default=True)
def demo(out: Path, weights: str | None, device: str) -> None:
    """Run few-shot jobs on real pictures; write a sheet and print IoU and milliseconds."""
    from iir_sdk.atomic_write import write_atomically
    from iir_sdk.demo.jobs import read_jobs, run_jobs
    from iir_sdk.demo.sheet import draw_sheet
    from iir_sdk.segmenter import FewShotSegmenter

    segmenter = FewShotSegmenter(weights, device=device)
    click.echo(f"{segmenter.checkpoint.name} on {segmenter.device}\n")
    click.echo(f"{'job':12} {'IoU':>5} {'add_support':>12} {'predict':>9}")
    results = []
    for result in run_jobs(segmenter, read_jobs()):
        results.append(result)
        click.echo(
            f"{result.job.name:12} {result.iou:5.2f} {result.add_support_ms:9.0f} ms {result.predict_ms:6.0f} ms"
        )
    click.echo(f"{'mean':12} {sum(r.iou for r in results) / len(results):5.2f}")
    sheet = draw_sheet(results)
    click.echo(f"\nsupport, query, prior and result side by side: {write_atomically(out, sheet.save)}")


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="A set, or a folder of sets.")
@click.option("--cutouts", type=click.Path(path_type=Path), help="Folder of cut-outs with alpha to paste.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--exclude-fold", type=click.IntRange(0, 3), help="Leave out the masks of this COCO fold's classes.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--device", default="auto", show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes that augment pictures.")
def train(
    recipe: Path | None,
    data: Path,
    cutouts: Path | None,
    out: Path,
    exclude_fold: int | None,
    overrides: tuple[str, ...],
    resume: bool,
    device: str,
    workers: int,
) -> None:
    """Train a decoder by RECIPE (default: the embedded checkpoint's) on folders of pictures with masks."""
    from iir_sdk.training.config import read_recipe
    from iir_sdk.training.data.folder import coco_fold
    from iir_sdk.training.start import build_trainer

    config = read_recipe(recipe or Path(__file__).parent / "training/recipes/lite2.toml", overrides)
    novel = () if exclude_fold is None else coco_fold(exclude_fold)
    trainer = build_trainer(config, data, out, cutouts=cutouts, novel=novel, device=device, workers=workers)
    trainer.run(resume=resume)
    click.echo(f"trained {trainer.step} steps; the checkpoint is {trainer.export()}")


@main.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="A set, or a folder of sets.")
@click.option("--weights", help="Checkpoint name, file or folder; default: the embedded one.")
@click.option("--fold", type=click.IntRange(0, 3), help="Score this COCO fold's classes only.")
@click.option("--shots", default=1, show_default=True)
@click.option("--episodes", default=1000, show_default=True, help="Episodes of each set.")
@click.option("--seed", default=0, show_default=True)
@click.option("--min-share", default=0.01, show_default=True, help="Smallest object, as a share of its picture.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the scores here, too.")
def evaluate(
    data: Path,
    weights: str | None,
    fold: int | None,
    shots: int,
    episodes: int,
    seed: int,
    min_share: float,
    device: str,
    json_file: Path | None,
) -> None:
    """Score a checkpoint on fixed episodes: mIoU and FB-IoU at every picture's own size."""
    from iir_sdk.segmenter import FewShotSegmenter
    from iir_sdk.training.data.folder import coco_fold, read_picture_sets
    from iir_sdk.training.evaluate import evaluate_set, write_scores

    segmenter = FewShotSegmenter(weights, device=device)
    scores = []
    for pictures in read_picture_sets(data):
        if fold is not None:
            pictures = pictures.only([c for c in coco_fold(fold) if c in pictures.classes])
        if not pictures.classes:
            click.echo(f"{pictures.name}: none of fold {fold}'s classes, left out", err=True)
            continue
        scores.append(evaluate_set(segmenter, pictures, shots=shots, episodes=episodes, seed=seed, min_share=min_share))
    if not scores:
        raise click.ClickException(f"no set in {data} has a class of fold {fold}.")
    for score in scores:
        click.echo(f"{score.name:20} mIoU {100 * score.miou:5.1f}   FB-IoU {100 * score.fb_iou:5.1f}")
    click.echo(f"{'mean':20} mIoU {100 * sum(s.miou for s in scores) / len(scores):5.1f}")
    if json_file:
        write_scores(json_file, scores)


if __name__ == "__main__":
    main()
