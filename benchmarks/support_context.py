"""How much of a support's picture is to be shown: ``python benchmarks/support_context.py DATA --out FILE``.

A support is cut to its object's box, so many times as long. DATA has the layout of docs/training.md; one support, one
query, mIoU over a set's classes. A query is seen once, and predicted by its support at every context.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from iir_sdk import FewShotSegmenter
from iir_sdk.data.dataset import IGNORE
from iir_sdk.data.folder import PictureSet, read_picture_sets
from iir_sdk.engines.base import Engine
from iir_sdk.evaluation.evaluate import Evaluator, Protocol, draw_episodes
from iir_sdk.evaluation.metrics import SegmentationScore, counts_of
from iir_sdk.results.full_size import mask_map
from iir_sdk.supports.encoded import EncodedSupport

# Training sets that neither embedded checkpoint has seen: of small objects, and of others.
SETS = (
    *("road_sign_thermal", "rooftop_pv", "heart_mri", "wood_debris", "pill_dish", "pipe_wall", "pancreatic_islets"),
    *("foot_ulcer", "stop_button", "cutlery", "weizmann_horse", "fire_smoke", "rock", "mug", "car_front_parts"),
    *("crater", "leaf_blast"),
)


def with_context(engine: Engine, context: float) -> Engine:
    """The same network, shown a support cut to ``context`` times its object's box; 0 is the whole picture."""
    other = copy.copy(engine)
    preprocessing = replace(engine.identity.preprocessing, support_context=context)
    other.identity = replace(engine.identity, preprocessing=preprocessing)
    return other


def compared(
    segmenter: FewShotSegmenter, pictures: PictureSet, contexts: Sequence[float], episodes: int
) -> dict[float, float]:
    """MIoU at each context."""
    engines = {context: with_context(segmenter.torch_engine, context) for context in contexts}
    scores = {context: SegmentationScore() for context in contexts}
    evaluator, encoded = Evaluator(segmenter, pictures), dict[tuple[float, str, str], EncodedSupport]()
    (drawn,) = draw_episodes(pictures, Protocol(episodes=episodes)).values()
    for episode in dict.fromkeys(drawn):
        query, truth, key = (
            evaluator.query(episode.query),
            pictures.mask(episode.name, episode.query),
            episode.supports[0],
        )
        for context, engine in engines.items():
            place = (context, episode.name, key)
            if place not in encoded:
                mask = pictures.mask(episode.name, key)
                encoded[place] = engine.encode(pictures.picture(key), mask == 1, mask != IGNORE)
            tasks = engine.prepare([segmenter.task([encoded[place]])])
            lead = segmenter.torch_engine.segment_read(query.features, tasks).leads[0]
            scores[context].add_counts(episode.name, counts_of(mask_map(lead, query.size, 0.5), truth))
    return {context: score.miou for context, score in scores.items()}


@click.command(help=__doc__)
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--weights", default=None)
@click.option("--set", "sets", multiple=True, help="A set of DATA; repeat. Default: those that the choice was made on.")
@click.option("--context", "contexts", multiple=True, type=float, default=(2, 3, 4, 6, 0), show_default=True)
@click.option("--episodes", default=40, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    data: Path, weights: str | None, sets: tuple[str, ...], contexts: tuple[float, ...], episodes: int, out: Path
) -> None:
    """Write each set's mIoU at each context."""
    segmenter, rows = FewShotSegmenter(weights, dtype="auto"), {}
    for pictures in read_picture_sets(data):
        if pictures.name in (sets or SETS):
            rows[pictures.name] = compared(segmenter, pictures, contexts, episodes)
            click.echo(
                f"{pictures.name:24s}" + "".join(f"  {c:g}: {100 * m:.1f}" for c, m in rows[pictures.name].items())
            )
    means = {context: float(np.mean([row[context] for row in rows.values()])) for context in contexts}
    click.echo(f"{'mean':24s}" + "".join(f"  {c:g}: {100 * m:.1f}" for c, m in means.items()))
    out.write_text(json.dumps({"weights": segmenter.checkpoint.name, "mean": means, "sets": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
