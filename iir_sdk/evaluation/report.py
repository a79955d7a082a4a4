"""Scores as JSON, as Markdown, and as pictures of the best, median and worst episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from iir_sdk.data.dataset import FewShotDataset
from iir_sdk.data.sheet import GREEN, RED, mask_tile
from iir_sdk.evaluation.calibration import PresenceScore
from iir_sdk.evaluation.evaluate import EpisodeScore, Evaluator, Protocol, SetScore
from iir_sdk.evaluation.metrics import SeedMeans
from iir_sdk.evaluation.ways import WaysSetScore
from iir_sdk.files import made_folder, write_atomically, write_text_atomically
from iir_sdk.segmenter import FewShotSegmenter

TILE = 240


def write_scores(path: Path, scores: Sequence[SeedMeans], left_out: Mapping[str, str] | None = None) -> None:
    """Write scores and their mean mIoU as JSON, with the sets that were left out, and why."""
    sets = [{name: value for name, value in asdict(score).items() if name != "scored"} for score in scores]
    document = {"mean_miou": float(np.mean([s.miou for s in scores])), "sets": sets, "left_out": dict(left_out or {})}
    write_text_atomically(path, json.dumps(document, indent=1) + "\n")


def write_presence(
    path: Path,
    scores: Sequence[PresenceScore],
    protocol: Protocol,
    segmenter: FewShotSegmenter,
    left_out: Mapping[str, str] | None = None,
) -> None:
    """Write presence scores of a checkpoint, how they were made, and the sets that were left out, and why, as JSON."""
    how = {"shots": protocol.shots, "seed": protocol.seeds[0], "min_share": protocol.min_share}
    made_by = {"precision": segmenter.engine.identity.precision, "token_budget": segmenter.token_budget}
    document = {
        "sha256": segmenter.checkpoint.sha256,
        "protocol": how | made_by,
        "sets": [asdict(score) for score in scores],
        "left_out": dict(left_out or {}),
    }
    write_text_atomically(path, json.dumps(document, indent=1) + "\n")


def markdown_table(scores: Sequence[SetScore], left_out: Mapping[str, str] | None = None) -> str:
    """Scores by set, by class below, and what was left out."""
    lines = [
        f"{_how(scores[0])}.",
        "",
        "| set | classes | mIoU | std over seeds | FB-IoU |",
        "|---|---|---|---|---|",
    ]
    for s in scores:
        lines.append(f"| {s.name} | {len(s.per_class)} | {100 * s.miou:.1f} | {_std(s)} | {100 * s.fb_iou:.1f} |")
    if len(scores) > 1:
        miou, fb_iou = np.mean([s.miou for s in scores]), np.mean([s.fb_iou for s in scores])
        lines.append(f"| **mean** | | **{100 * miou:.1f}** | | **{100 * fb_iou:.1f}** |")
    return _document(lines, scores, left_out)


def ways_table(scores: Sequence[WaysSetScore], left_out: Mapping[str, str] | None = None) -> str:
    """N-way scores by set, by class below, and what was left out."""
    lines = [
        f"{_how(scores[0])}; several labels, one map scored, mIoU over labels and background.",
        "",
        "| set | labels at once | classes | mIoU | std over seeds | background | labels | where shown | own masks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in scores:
        rest = " | ".join(f"{100 * value:.1f}" for value in (s.background, s.labels, s.shown, s.own_masks))
        lines.append(f"| {s.name} | {s.ways} | {len(s.per_class)} | {100 * s.miou:.1f} | {_std(s)} | {rest} |")
    if len(scores) > 1:
        miou, *of_labels = (
            f"**{100 * np.mean([getattr(s, name) for s in scores]):.1f}**"
            for name in ("miou", "labels", "shown", "own_masks")
        )
        lines.append(f"| **mean** | | | {miou} | | | {' | '.join(of_labels)} |")
    return _document(lines, scores, left_out)


def _how(score: SeedMeans) -> str:
    how = score.protocol
    # What a list of episodes was drawn by is not known.
    listed = how["min_share"] is None
    drawn = (
        f"listed in `{how['episodes_file']}`" if listed else f"of at least {100 * how['min_share']:g} % of the picture"
    )
    return (
        f"{how['shots']}-shot, {score.episodes} episodes a set, seeds {', '.join(map(str, how['seeds']))}, "
        f"{'episodes' if listed else 'objects'} {drawn}, scored at {how['scored_at']}; "
        f"checkpoint `{how['checkpoint']}` ({how['sha256'][:12]}), input {how['input_pixels']} px"
    )


def _std(score: SeedMeans) -> str:
    return f"{100 * score.miou_std:.1f}" if len(score.miou_of_seeds) > 1 else "-"


def _document(lines: list[str], scores: Sequence[SeedMeans], left_out: Mapping[str, str] | None) -> str:
    """With what was left out, and scores by class."""
    if left_out:
        lines += ["", *(f"Left out: {reason}" for reason in left_out.values())]
    for s in scores:
        lines += ["", f"## {s.name}", "", "| class | IoU |", "|---|---|"]
        lines += [f"| {name} | {100 * iou:.1f} |" for name, iou in s.per_class.items()]
    return "\n".join(lines) + "\n"


def telling_episodes(scored: Sequence[EpisodeScore], count: int) -> dict[str, list[EpisodeScore]]:
    """The ``count`` best, those around the median, and the worst episodes by IoU, each best first."""
    ranked = sorted(scored, key=lambda s: -s.iou)
    count = min(count, len(ranked))
    middle = (len(ranked) - count) // 2
    return {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}


def draw_episode_figures(
    segmenter: FewShotSegmenter, pictures: FewShotDataset, score: SetScore, folder: Path, *, count: int = 4
) -> list[Path]:
    """Write one sheet each of the best, median and worst episodes: support, query with its truth, found mask."""
    made_folder(folder)
    evaluator = Evaluator(segmenter, pictures, output=score.protocol["output"])
    written = []
    for kind, chosen in telling_episodes(score.scored, count).items():
        sheet = Image.new("RGB", (3 * TILE, len(chosen) * TILE), "white")
        for row, scored in enumerate(chosen):
            for column, tile in enumerate(_tiles(evaluator, pictures, scored)):
                sheet.paste(tile, (column * TILE, row * TILE))
        written.append(write_atomically(folder / f"{score.name}_{kind}.png", sheet.save))
    return written


def _tiles(evaluator: Evaluator, pictures: FewShotDataset, scored: EpisodeScore) -> list[Image.Image]:
    episode = scored.episode
    support, query = pictures.picture(episode.supports[0]), pictures.picture(episode.query)
    support_mask = pictures.mask(episode.name, episode.supports[0]) == 1
    truth = pictures.mask(episode.name, episode.query) == 1
    predicted = evaluator.probability(episode) > 0.5
    return [
        mask_tile(support, [(support_mask, RED, 0.5)], f"{episode.name}: support"[:40], TILE),
        mask_tile(query, [(truth, GREEN, 0.5)], "query, truth", TILE),
        mask_tile(query, [(predicted, RED, 0.5)], f"found, IoU {scored.iou:.2f}", TILE),
    ]
