"""Scores as JSON, as Markdown, and as pictures of the best, median and worst episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from iir_sdk.atomic_write import made_folder, write_atomically, write_text_atomically
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.training.data.dataset import FewShotDataset
from iir_sdk.training.evaluate import EpisodeScore, Evaluator, Protocol, SetScore
from iir_sdk.training.mask_tile import GREEN, RED, mask_tile
from iir_sdk.training.presence_fit import PresenceScore

TILE = 240


def write_scores(path: Path, scores: Sequence[SetScore]) -> None:
    """Write scores and their mean mIoU as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    sets = []
    for score in scores:
        plain = asdict(score)
        plain.pop("scored")
        sets.append(plain)
    document = {"mean_miou": float(np.mean([s.miou for s in scores])), "sets": sets}
    text = json.dumps(document, indent=1) + "\n"
    write_text_atomically(path, text)


def write_presence(
    path: Path, scores: Sequence[PresenceScore], protocol: Protocol, segmenter: FewShotSegmenter
) -> None:
    """Write presence scores of a checkpoint, and how they were made, as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    how = {"shots": protocol.shots, "seed": protocol.seeds[0], "min_share": protocol.min_share}
    made_by = {"precision": segmenter.engine.precision, "token_budget": segmenter.token_budget}
    document = {
        "sha256": segmenter.checkpoint.sha256,
        "protocol": how | made_by,
        "sets": [asdict(score) for score in scores],
    }
    text = json.dumps(document, indent=1) + "\n"
    write_text_atomically(path, text)


def markdown_table(scores: Sequence[SetScore]) -> str:
    """Scores by set, and by class below."""
    how = scores[0].protocol
    lines = [
        f"{how['shots']}-shot, {scores[0].episodes} episodes a set, seeds {', '.join(map(str, how['seeds']))}, "
        f"objects of at least {100 * how['min_share']:g} % of the picture, scored at {how['scored_at']}; "
        f"checkpoint `{how['checkpoint']}` ({how['sha256'][:12]}), input {how['input_pixels']} px, "
        f"scales {', '.join(f'{s:g}' for s in how['scales'])}.",
        "",
        "| set | classes | mIoU | std over seeds | FB-IoU |",
        "|---|---|---|---|---|",
    ]
    for s in scores:
        std = f"{100 * s.miou_std:.1f}" if len(s.miou_of_seeds) > 1 else "-"
        lines.append(f"| {s.name} | {len(s.per_class)} | {100 * s.miou:.1f} | {std} | {100 * s.fb_iou:.1f} |")
    if len(scores) > 1:
        miou, fb_iou = np.mean([s.miou for s in scores]), np.mean([s.fb_iou for s in scores])
        lines.append(f"| **mean** | | **{100 * miou:.1f}** | | **{100 * fb_iou:.1f}** |")
    for s in scores:
        lines += ["", f"## {s.name}", "", "| class | IoU |", "|---|---|"]
        lines += [f"| {name} | {100 * iou:.1f} |" for name, iou in s.per_class.items()]
    return "\n".join(lines) + "\n"


def write_markdown(path: Path, scores: Sequence[SetScore]) -> None:
    """Write :func:`markdown_table` to a file.

    Raises:
        OutputError: it cannot be written.
    """
    text = markdown_table(scores)
    write_text_atomically(path, text)


def telling_episodes(scored: Sequence[EpisodeScore], count: int) -> dict[str, list[EpisodeScore]]:
    """The ``count`` best, those around the median, and the worst episodes by IoU, each best first."""
    ranked = sorted(scored, key=lambda s: -s.iou)
    count = min(count, len(ranked))
    middle = (len(ranked) - count) // 2
    return {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}


def draw_episode_figures(
    segmenter: FewShotSegmenter, pictures: FewShotDataset, score: SetScore, folder: Path, *, count: int = 4
) -> list[Path]:
    """Write one sheet each of the best, median and worst episodes: support, query with its truth, found mask.

    Raises:
        OutputError: the folder cannot be made, or a sheet not be written.
    """
    made_folder(folder)
    evaluator = Evaluator(segmenter, pictures, scales=score.protocol["scales"], output=score.protocol["output"])
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
    found = evaluator.probability(episode) > 0.5
    return [
        mask_tile(support, [(support_mask, RED, 0.5)], f"{episode.name}: support"[:40], TILE),
        mask_tile(query, [(truth, GREEN, 0.5)], "query, truth", TILE),
        mask_tile(query, [(found, RED, 0.5)], f"found, IoU {scored.iou:.2f}", TILE),
    ]
