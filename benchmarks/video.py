"""Mean IoU on short sequences by the first frame's mask: frame by frame, and by what earlier frames showed.

python benchmarks/video.py --data TRAIN --half choose --sequences 10 --steady 0.3 --steady 0.5 --memory 3 --out FILE
python benchmarks/video.py --data TRAIN --half report --sequences 10 --out FILE

So many sequences of recordings, and as many of a moving camera (``video_sequences.py``); the first frame, whose mask is
given, does not count. Settings are chosen on one half and reported on the other, which is of other sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from video_sequences import STEP, Sequence, cameras, recordings

from iir_sdk import FewShotSegmenter
from iir_sdk.pictures.load import Picture
from iir_sdk.results.segmentation import Cut
from iir_sdk.video.frames import FrameMask, teach_frame
from iir_sdk.video.memory import MEMORY, STEADY, Memory, Recall
from iir_sdk.video.reading import Still

ALONE = "frame by frame"


class Looking(FewShotSegmenter):
    """Computes what the given supports say of a frame once, for all settings."""

    seen: dict[int, Any]

    def segment_beside(self, picture: Picture, further: Any, *, labels: Any, cut: Cut) -> Any:
        if further:
            return super().segment_beside(picture, further, labels=labels, cut=cut)
        # By the pixels, which the sequence keeps, so that no others get their number.
        number = id(picture.pixels)
        if number not in self.seen:
            self.seen[number] = super().segment_beside(picture, further, labels=labels, cut=cut)
        return self.seen[number]


def scores(segmenter: Looking, sequence: Sequence, settings: Mapping[str, Recall]) -> dict[str, float]:
    """Mean IoU of all frames but the first: frame by frame as ``predict`` does it, and by each of the settings."""
    mark = FrameMask(0, sequence.masks[0])
    segmenter.clear_supports()
    segmenter.seen = {}
    segmenter.add_support(sequence.frames[0], mark.mask)
    means = {ALONE: mean_iou(segmenter, sequence, Recall(0, 0))}
    segmenter.clear_supports()
    segmenter.seen = {}
    teach_frame(segmenter, sequence.frames[0], mark)
    return means | {name: mean_iou(segmenter, sequence, recall) for name, recall in settings.items()}


def mean_iou(segmenter: Looking, sequence: Sequence, recall: Recall) -> float:
    memory, ious = Memory(segmenter, None, Cut(), recall), []
    for i, (picture, truth) in enumerate(zip(sequence.frames, sequence.masks, strict=True)):
        mask = memory.segment(Still(i, i * STEP, Picture(picture)), {"object": truth} if i == 0 else None).mask
        ious.append((mask & truth).sum() / max(1, (mask | truth).sum()))
    return round(100 * float(np.mean(ious[1:])), 2)


def spread(sequences: Iterable[Sequence], count: int) -> list[Sequence]:
    """So many of them, evenly from first to last; all where there are fewer."""
    listed = list(sequences)
    if len(listed) <= count:
        return listed
    return [listed[i] for i in np.linspace(0, len(listed) - 1, count).round().astype(int)]


def summary(rows: list[dict[str, Any]], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Means over sequences, by kind and setting; what a setting gains is against frame by frame."""
    kinds = {kind: [row for row in rows if kind in (row["kind"], "all")] for kind in ("recording", "camera", "all")}
    return {
        kind: {"sequences": len(of_kind), **{n: round(float(np.mean([row[n] for row in of_kind])), 2) for n in names}}
        for kind, of_kind in kinds.items()
        if of_kind
    }


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--half", type=click.Choice(["choose", "report"]), default="report")
@click.option("--sequences", type=int, default=10, help="Of each kind.")
@click.option("--steady", "steadies", type=float, multiple=True, default=[STEADY])
@click.option("--memory", "memories", type=int, multiple=True, default=[MEMORY])
@click.option("--weights")
@click.option("--threads", type=int)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file; written after each sequence.")
def main(
    data: Path,
    half: str,
    sequences: int,
    steadies: tuple[float, ...],
    memories: tuple[int, ...],
    weights: str | None,
    threads: int | None,
    out: Path,
) -> None:
    """Score the settings on one half of the sequences."""
    segmenter = Looking(weights, device="cpu", threads=threads)
    settings = {f"memory {m}, steady {s}": Recall(m, s) for m, s in product(memories, steadies)}
    recorded, moved = spread(recordings(data, half), sequences), list(cameras(data, half, sequences))
    rows: list[dict[str, Any]] = []
    # By turns, so that a run that was ended early has both kinds.
    for pair in zip(recorded, moved, strict=False):
        for sequence in pair:
            rows.append({"name": sequence.name, "kind": sequence.kind, **scores(segmenter, sequence, settings)})
            click.echo(json.dumps(rows[-1]))
            content = {
                "weights": segmenter.engine.identity.name,
                "half": half,
                "means": summary(rows, [ALONE, *settings]),
            }
            out.write_text(json.dumps({**content, "sequences": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
