"""``iir-sdk calibrate`` and ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iir_sdk.training_options import DATA, DEVICE, DTYPE, EXIF, LEAVE_OUT, PATH, SCORING

if TYPE_CHECKING:
    from iir_sdk.pictures.orientation import Exif
    from iir_sdk.training.data.dataset import FewShotDataset
    from iir_sdk.training.evaluate import Protocol


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@DATA
@click.option("--exclude-fold", type=click.IntRange(0, 3), help="Leave out this COCO fold's classes, as in training.")
@LEAVE_OUT
@click.option("--episodes", default=1000, show_default=True, help="Of each set, with the object and without it.")
@click.option("--seed", default=0, show_default=True)
@EXIF
@DEVICE
def calibrate(
    run: Path,
    data: Path,
    exclude_fold: int | None,
    leave_out: tuple[str, ...],
    episodes: int,
    seed: int,
    exif: Exif,
    device: str,
) -> None:
    """Fit RUN's scores and confidences: does a query show the object, and how much of the mask is right?

    They are fitted to training pictures with and without the object.

    RUN is a training run's folder, or a .safetensors file; the fitted head goes into it, and masks stay as they are.
    Take sets whose classes are different things: what one class shows counts as absent for the others.
    """
    import torch

    from iir_sdk.segmenter import FewShotSegmenter
    from iir_sdk.training.data.exclusion import without_classes, without_sets
    from iir_sdk.training.data.folder import coco_fold, read_picture_sets
    from iir_sdk.training.evaluate import Protocol
    from iir_sdk.training.presence_fit import Observed, fit_scores, present_and_absent
    from iir_sdk.weights.checkpoint_file import WEIGHTS_FILE, save_checkpoint
    from iir_sdk.weights.resolve import CONFIG_FILE

    if (run / CONFIG_FILE).exists():
        raise click.UsageError(f"{run} was saved with its sha256; calibrate the training run, then save it again.")
    path = run / WEIGHTS_FILE if run.is_dir() else run
    segmenter = FewShotSegmenter(path, device=device)
    every = without_sets(read_picture_sets(data, exif=exif), leave_out)
    sets = without_classes(every, () if exclude_fold is None else coco_fold(exclude_fold))
    protocol = Protocol(episodes=episodes, seeds=(seed,))
    found = _of_telling_sets(sets, lambda pictures: present_and_absent(segmenter, pictures, protocol))
    observed = Observed(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    save_checkpoint(fit_scores(segmenter.checkpoint.model.cpu(), observed), segmenter.preprocessing, path)
    click.echo(f"fitted to {len(observed.shown)} episodes; the checkpoint is {path}")


@click.command()
@DATA
@click.option("--benchmark", "name", help="Read --data as this benchmark, e.g. pascal; default: folders of one's own.")
@click.option("--weights", help="Checkpoint name, file or folder; default: the embedded one.")
@click.option("--fold", type=click.IntRange(0, 9), help="Score this fold's classes only (COCO's in one's own folders).")
@SCORING
@click.option(
    "--scale",
    "scales",
    multiple=True,
    type=float,
    default=(1.0,),
    help="Factor of the input size; repeat.",
)
@click.option("--output", type=click.Choice(["mask", "prior"]), default="mask", help="What to score.")
@click.option("--absent", is_flag=True, help="Score how well pictures without the object are told apart, instead.")
@EXIF
@DEVICE
@DTYPE
@click.option("--token-budget", default=384, show_default=True, help="Tokens that a label's supports are merged to.")
@click.option("--json", "json_file", type=PATH, help="Write the scores here, too.")
@click.option("--markdown", "markdown_file", type=PATH, help="Write a table here, too.")
@click.option("--figures", type=PATH, help="Folder for sheets of the best, median and worst episodes.")
@click.option("--episodes-file", type=PATH, help="List the episodes here; a list that is there is scored instead.")
def evaluate(
    data: Path,
    name: str | None,
    weights: str | None,
    fold: int | None,
    shots: int,
    episodes: int,
    seeds: tuple[int, ...],
    min_share: float | None,
    scales: tuple[float, ...],
    output: str,
    absent: bool,
    exif: Exif,
    device: str,
    dtype: str,
    token_budget: int,
    json_file: Path | None,
    markdown_file: Path | None,
    figures: Path | None,
    episodes_file: Path | None,
) -> None:
    """Score a checkpoint on fixed episodes: mIoU and FB-IoU at every picture's own size."""
    from iir_sdk.atomic_write import check_writable_place
    from iir_sdk.segmenter import FewShotSegmenter
    from iir_sdk.training.evaluate import Protocol
    from iir_sdk.training.report import draw_episode_figures, write_markdown, write_scores

    # Now, and not when all is scored.
    for file in (json_file, markdown_file, episodes_file):
        if file:
            check_writable_place(file)
    sets = sets_of(data, name, fold, exif)
    share = (0.0 if name else 0.01) if min_share is None else min_share
    protocol = Protocol(shots, episodes, tuple(seeds), share, tuple(scales), output)  # type: ignore[arg-type]
    segmenter = FewShotSegmenter(weights, device=device, dtype=dtype, token_budget=token_budget)
    if absent:
        if markdown_file or figures or episodes_file or output != "mask" or len(seeds) > 1 or scales != (1.0,):
            raise click.UsageError("--absent goes with --shots, --episodes, one --seed, --min-share and --json only.")
        _score_presence(segmenter, sets, protocol, json_file)
        return
    scores = _score_sets(segmenter, sets, protocol, episodes_file)
    # Before anything is printed, which a closed pipe may put an end to.
    if json_file:
        write_scores(json_file, scores)
    if markdown_file:
        write_markdown(markdown_file, scores)
    for score in scores:
        spread = f" +- {100 * score.miou_std:.1f}" if len(score.miou_of_seeds) > 1 else ""
        click.echo(f"{score.name:20} mIoU {100 * score.miou:5.1f}{spread}   FB-IoU {100 * score.fb_iou:5.1f}")
    click.echo(f"{'mean':20} mIoU {100 * sum(s.miou for s in scores) / len(scores):5.1f}")
    if figures:
        for pictures, score in zip(sets, scores, strict=True):
            draw_episode_figures(segmenter, pictures, score, figures)


def sets_of(data: Path, name: str | None, fold: int | None, exif: Exif = "auto") -> list[FewShotDataset]:
    """What to score on: a benchmark's test classes, or sets of one's own with the classes of a fold, or with all.

    Raises:
        DatasetError: there is no such benchmark, fold, or set.
        click.ClickException: no set has a class of the fold.
    """
    from iir_sdk.training.data.dataset import Selection
    from iir_sdk.training.data.folder import coco_fold, read_picture_sets
    from iir_sdk.training.data.registry import benchmark

    if name:
        return [benchmark(name).read(data, Selection(fold or 0, "test"))]
    sets: list[FewShotDataset] = []
    for pictures in read_picture_sets(data, exif=exif):
        if fold is not None:
            pictures = pictures.only([c for c in coco_fold(fold) if c in pictures.classes])
        if pictures.classes:
            sets.append(pictures)
        else:
            click.echo(f"{pictures.name}: none of fold {fold}'s classes, left out", err=True)
    if not sets:
        raise click.ClickException(f"no set in {data} has a class of fold {fold}.")
    return sets


def _of_telling_sets(sets: Sequence[Any], each: Callable[[Any], Any]) -> list[Any]:
    """Of every set that has pictures without a class; the others are named."""
    from iir_sdk.errors import NoAbsenceError

    found = []
    for pictures in sets:
        try:
            found.append(each(pictures))
        except NoAbsenceError as error:
            click.echo(f"left out: {error}", err=True)
    if not found:
        raise click.ClickException("no set is left that shows a class in some pictures and not in others.")
    return found


def _score_presence(segmenter: Any, sets: Sequence[FewShotDataset], protocol: Protocol, json_file: Path | None) -> None:
    from iir_sdk.training.presence_fit import presence_score
    from iir_sdk.training.report import write_presence

    scores = _of_telling_sets(sets, lambda pictures: presence_score(segmenter, pictures, protocol))
    if json_file:
        write_presence(json_file, scores, protocol, segmenter)
    for score in scores:
        click.echo(
            f"{score.name:20} AUROC {score.auroc:.3f}   ECE {score.ece:.3f}   of the confidence "
            f"{score.confidence_ece:.3f}   ({score.episodes} episodes each)"
        )


def _score_sets(segmenter: Any, sets: Sequence[FewShotDataset], protocol: Protocol, listed: Path | None) -> list[Any]:
    from iir_sdk.training.data.episodes import check_episodes, read_episodes, write_episodes
    from iir_sdk.training.evaluate import draw_episodes, evaluate_set

    kept = listed if listed and listed.exists() else None
    if kept:
        drawn = read_episodes(kept)
        for pictures in sets:
            if pictures.name not in drawn:
                raise click.ClickException(f"{listed} lists {', '.join(drawn)}, not {pictures.name}.")
            check_episodes(drawn[pictures.name], pictures, protocol.shots)
    else:
        drawn = {s.name: draw_episodes(s, protocol) for s in sets}
        if listed:
            write_episodes(listed, drawn)
    scores = [evaluate_set(segmenter, s, protocol, episodes=drawn[s.name]) for s in sets]
    if kept:
        # What the list was drawn by is not known.
        scores = [replace(s, protocol=s.protocol | {"min_share": None, "episodes_file": kept.name}) for s in scores]
    return scores
