"""``iir-sdk calibrate`` and ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iir_sdk.cli.options import DATA, DEVICE, DTYPE, EXIF, LEAVE_OUT, ONLY, PATH, SCORING, WEIGHTS

if TYPE_CHECKING:
    from iir_sdk.data.dataset import FewShotDataset
    from iir_sdk.data.folder import PictureSet
    from iir_sdk.evaluation.calibration import PresenceScore
    from iir_sdk.evaluation.evaluate import Protocol, SetScore
    from iir_sdk.evaluation.observation import Observed
    from iir_sdk.evaluation.ways import WaysSetScore
    from iir_sdk.pictures.orientation import Exif

_LEFT_OUT = 3
"""Exit code where sets were left out."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@DATA
@click.option("--exclude-fold", type=click.IntRange(0, 3), help="Leave out this COCO fold's classes, as in training.")
@LEAVE_OUT
@ONLY
@click.option(
    "--complete",
    multiple=True,
    metavar="SET",
    help="A set whose masks are all that there are of its classes; repeat. Default: coco, and a set that is alone.",
)
@click.option(
    "--episodes",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="With the object, and as many without it: half of complete sets, half of the others, all sets alike.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_file", type=PATH, help="Write the scores by held-out sets here.")
@EXIF
@DEVICE
def calibrate(
    run: Path,
    data: Path,
    exclude_fold: int | None,
    leave_out: tuple[str, ...],
    only: tuple[str, ...],
    complete: tuple[str, ...],
    episodes: int,
    seed: int,
    json_file: Path | None,
    exif: Exif,
    device: str,
) -> None:
    """Fit RUN's scores and confidences: does a query show the object, and how much of the mask is right?

    They are fitted to training pictures with and without the object. What a picture of a complete set has no mask of
    counts as absent from it; for the classes of other sets, pictures of sets that have nothing to do with them do.
    What the scores are worth is printed set by set, by fits that left the set out (of a complete one, the class).

    RUN is a training run's folder, or a .safetensors file; the fitted head goes into it, and masks stay as they are.
    """
    from iir_sdk.data.exclusion import only_named, without_classes, without_sets
    from iir_sdk.data.folder import JoinedSets, coco_fold, read_picture_sets
    from iir_sdk.evaluation.calibration import cross_validated, fit_scores
    from iir_sdk.evaluation.evaluate import Protocol
    from iir_sdk.evaluation.observation import observe_among
    from iir_sdk.evaluation.report import write_presence
    from iir_sdk.files import check_writable_place
    from iir_sdk.segmenter import FewShotSegmenter
    from iir_sdk.training.config import read_names
    from iir_sdk.weights.checkpoint_file import WEIGHTS_FILE, save_checkpoint
    from iir_sdk.weights.resolve import CONFIG_FILE

    if (run / CONFIG_FILE).exists():
        raise click.UsageError(f"{run} was saved with its sha256; calibrate the training run, then save it again.")
    if json_file:
        check_writable_place(json_file)
    path = run / WEIGHTS_FILE if run.is_dir() else run
    segmenter = FewShotSegmenter(path, device=device)
    every = without_sets(only_named(read_picture_sets(data, exif=exif), read_names(only)), leave_out)
    sets = without_classes(every, () if exclude_fold is None else coco_fold(exclude_fold))
    strange = sorted(set(complete) - {s.name for s in sets})
    if strange:
        raise click.UsageError(f"--complete {strange[0]} is no set; there are {', '.join(s.name for s in sets)}.")
    of_sort = _complete_sets([s.name for s in sets], complete)
    counts = {sort: list(of_sort.values()).count(sort) * len(set(of_sort.values())) for sort in of_sort.values()}
    joined = JoinedSets({s.name: s for s in sets})

    def observe(pictures: PictureSet) -> Observed:
        name = pictures.name
        protocol = Protocol(episodes=max(1, round(episodes / counts[of_sort[name]])), seeds=(seed,))
        return observe_among(segmenter, joined, name, protocol, complete=of_sort[name])

    observed, left_out = _of_usable_sets(sets, observe)
    known = [name for name in observed if of_sort[name]]
    scores = cross_validated(observed, known)
    for score in scores:
        click.echo(str(score))
    if not scores:
        click.echo("too few sets and classes to hold some out: what the scores are worth is not known")
    if json_file:
        write_presence(json_file, scores, Protocol(episodes=episodes, seeds=(seed,)), segmenter, left_out)
    fitted = fit_scores(segmenter.checkpoint.model.cpu(), observed, known)
    save_checkpoint(fitted, segmenter.preprocessing, path, segmenter.checkpoint.entry.description)
    click.echo(f"fitted to {sum(len(o.shown) for o in observed.values())} episodes; the checkpoint is {path}")


def _complete_sets(names: Sequence[str], complete: Sequence[str]) -> dict[str, bool]:
    """Whether each set's masks are all that there are of its classes: as is said, else of COCO and of one alone."""
    said = complete or (names if len(names) == 1 else ("coco",))
    return {name: name in said for name in names}


@click.command()
@DATA
@click.option("--benchmark", "name", help="Read --data as this benchmark, e.g. pascal; default: folders of one's own.")
@WEIGHTS
@click.option("--fold", type=click.IntRange(0, 9), help="Score this fold's classes only (COCO's in one's own folders).")
@SCORING
@click.option("--output", type=click.Choice(["mask", "prior"]), default="mask", help="What to score.")
@click.option(
    "--ways",
    type=click.IntRange(2, 254),
    help="Score so many labels at once, which compete for one map; all classes where a set has fewer.",
)
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
    output: str,
    ways: int | None,
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
    """Score a checkpoint on fixed episodes: mIoU and FB-IoU at every picture's own size.

    Sets that have too few pictures are named and left out; the exit code is then 3. Files are written again after each
    set, so that a run that ends early keeps what it scored.
    """
    from iir_sdk.evaluation.evaluate import Protocol
    from iir_sdk.evaluation.report import draw_episode_figures
    from iir_sdk.files import check_writable_place, made_folder
    from iir_sdk.segmenter import FewShotSegmenter

    if (absent or ways) and (figures or episodes_file or output != "mask" or (absent and ways)):
        raise click.UsageError(
            "--absent and --ways go neither with each other nor with --figures, --episodes-file or --output."
        )
    if absent and (markdown_file or len(seeds) > 1):
        raise click.UsageError("--absent goes with one --seed, and with --json only.")
    if name and exif != "auto":
        raise click.UsageError("--exif goes with folders of one's own, not with --benchmark.")
    # Now, and not when all is scored.
    for file in (json_file, markdown_file, episodes_file):
        if file:
            check_writable_place(file)
    if figures:
        made_folder(figures)
    sets = sets_of(data, name, fold, exif)
    share = (0.0 if name else 0.01) if min_share is None else min_share
    protocol = Protocol(shots, episodes, tuple(seeds), share, output)  # type: ignore[arg-type]
    segmenter = FewShotSegmenter(weights, device=device, dtype=dtype, token_budget=token_budget)
    keep = partial(_keep, json_file, markdown_file)
    if absent:
        left_out = _score_presence(segmenter, sets, protocol, json_file)
    elif ways:
        left_out = _score_ways(segmenter, sets, protocol, ways, keep)
    else:
        scores, left_out = _score_masks(segmenter, sets, protocol, episodes_file, keep)
        if figures:
            for pictures in sets:
                if pictures.name in scores:
                    draw_episode_figures(segmenter, pictures, scores[pictures.name], figures)
    if left_out:
        click.echo(f"left out: {', '.join(left_out)}")
        raise click.exceptions.Exit(_LEFT_OUT)


def sets_of(data: Path, name: str | None, fold: int | None, exif: Exif = "auto") -> list[FewShotDataset]:
    """What to score on: a benchmark's test classes, or sets of one's own with the classes of a fold, or with all."""
    from iir_sdk.data.dataset import Selection
    from iir_sdk.data.folder import coco_fold, read_picture_sets
    from iir_sdk.data.registry import benchmark

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


def _of_usable_sets(
    sets: Sequence[Any], each: Callable[[Any], Any], keep: Callable[[list[Any], dict[str, str]], None] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Of every set that has what it takes, by its name, kept after each; why others, named at once, have not."""
    from iir_sdk.errors import NoAbsenceError, TooFewPicturesError

    of_sets: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for pictures in sets:
        try:
            of_sets[pictures.name] = each(pictures)
        except (NoAbsenceError, TooFewPicturesError) as error:
            left_out[pictures.name] = str(error)
            click.echo(f"left out: {error}", err=True)
        if of_sets and keep:
            keep(list(of_sets.values()), left_out)
    if not of_sets:
        raise click.ClickException(f"no set is left: {' '.join(left_out.values())}")
    return of_sets, left_out


def _score_presence(
    segmenter: Any, sets: Sequence[FewShotDataset], protocol: Protocol, json_file: Path | None
) -> dict[str, str]:
    from iir_sdk.evaluation.calibration import presence_score
    from iir_sdk.evaluation.report import write_presence

    def keep(scores: list[PresenceScore], left_out: dict[str, str]) -> None:
        if json_file:
            write_presence(json_file, scores, protocol, segmenter, left_out)

    scores, left_out = _of_usable_sets(sets, lambda pictures: presence_score(segmenter, pictures, protocol), keep)
    for score in scores.values():
        click.echo(str(score))
    return left_out


def _keep(
    json_file: Path | None,
    markdown_file: Path | None,
    scores: Mapping[str, Any],
    left_out: Mapping[str, str],
    table: Callable[..., str],
) -> None:
    """Write all the scores that there are so far."""
    from iir_sdk.evaluation.report import write_scores
    from iir_sdk.files import write_text_atomically

    if json_file:
        write_scores(json_file, list(scores.values()), left_out)
    if markdown_file:
        write_text_atomically(markdown_file, table(list(scores.values()), left_out))


def _score_ways(
    segmenter: Any, sets: Sequence[FewShotDataset], protocol: Protocol, ways: int, keep: Callable[..., None]
) -> dict[str, str]:
    from iir_sdk.evaluation.report import ways_table
    from iir_sdk.evaluation.ways import draw_ways, evaluate_ways

    drawn, left_out = _of_usable_sets(sets, lambda pictures: draw_ways(pictures, protocol, ways))
    scores = {}
    for pictures in (s for s in sets if s.name in drawn):
        scores[pictures.name] = evaluate_ways(segmenter, pictures, protocol, drawn[pictures.name])
        keep(scores, left_out, ways_table)
    _print_scores(scores, lambda s, miou: f"{s.ways}-way {miou}   {_ways_line([s])}")
    click.echo(f"{'mean':20} {_ways_line(list(scores.values()))}")
    return left_out


def _ways_line(scores: Sequence[WaysSetScore]) -> str:
    means = (sum(getattr(s, name) for s in scores) / len(scores) for name in ("labels", "shown", "own_masks"))
    on_map, shown, own_masks = (f"{100 * mean:.1f}" for mean in means)
    return f"labels on the map {on_map}, where shown {shown}, by their own masks {own_masks}"


def _score_masks(
    segmenter: Any, sets: Sequence[FewShotDataset], protocol: Protocol, file: Path | None, keep: Callable[..., None]
) -> tuple[dict[str, SetScore], dict[str, str]]:
    """Scores by set, on the episodes that a file lists or else on drawn ones; and why sets were left out."""
    from iir_sdk.data.episodes import check_episodes, read_episodes, write_episodes
    from iir_sdk.errors import TooFewPicturesError
    from iir_sdk.evaluation.evaluate import draw_episodes, evaluate_set
    from iir_sdk.evaluation.report import markdown_table

    listed = read_episodes(file) if file and file.exists() else None

    def episodes_of(pictures: FewShotDataset) -> Any:
        if listed is None:
            return draw_episodes(pictures, protocol)
        if pictures.name not in listed:
            raise TooFewPicturesError(f"{file} lists {', '.join(listed)}, not {pictures.name}.")
        check_episodes(listed[pictures.name], pictures, protocol.shots)
        return listed[pictures.name]

    drawn, left_out = _of_usable_sets(sets, episodes_of)
    if file and listed is None:
        write_episodes(file, drawn)
    scores: dict[str, SetScore] = {}
    for pictures in (s for s in sets if s.name in drawn):
        score = evaluate_set(segmenter, pictures, protocol, episodes=drawn[pictures.name])
        if file and listed:
            # What the list was drawn by is not known.
            score = replace(score, protocol=score.protocol | {"min_share": None, "episodes_file": file.name})
        scores[pictures.name] = score
        keep(scores, left_out, markdown_table)
    # Only now, since a closed pipe may put an end to it.
    _print_scores(scores, lambda s, miou: f"{miou}   FB-IoU {100 * s.fb_iou:5.1f}")
    return scores, left_out


def _print_scores(scores: Mapping[str, Any], line: Callable[[Any, str], str]) -> None:
    for name, score in scores.items():
        spread = f" +- {100 * score.miou_std:.1f}" if len(score.miou_of_seeds) > 1 else ""
        click.echo(f"{name:20} {line(score, f'mIoU {100 * score.miou:5.1f}{spread}')}")
    click.echo(f"{'mean':20} mIoU {100 * sum(s.miou for s in scores.values()) / len(scores):5.1f}")
