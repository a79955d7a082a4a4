"""What sharpening brings: ``python benchmarks/edges.py DATA --out FILE``, the layout of docs/training.md.

One support, one query. Log-odds at the network's grid are kept in ``--cache``, so that ways to enlarge them are
compared in seconds. mIoU is the mean over a set's classes; boundary F is the mean over its pictures of DAVIS's F
measure, a boundary's pixel being right within a share of the diagonal: 0.75 % (``F``) and 0.25 % (``F, tight``). A
``gain`` is the mean change of pictures' IoU or F over the first way's, with its standard error, paired by picture.
"""

from __future__ import annotations

import json
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from iir_sdk import FewShotSegmenter
from iir_sdk.data.folder import PictureSet, read_picture_sets
from iir_sdk.errors import IirWarning
from iir_sdk.evaluation.metrics import SegmentationScore
from iir_sdk.results.full_size import mask_map
from iir_sdk.results.sharpening import sharpened

# Sets that `iir-duo` was not trained on. That masks keep their size was chosen on SETS, and checked on FURTHER.
SETS = (
    *("beam_loss_monitor", "bicycle_head_tube", "car_front_parts", "car_wreck_damage", "cwfid_crop_weed"),
    *("document_stamp_sign", "feet", "fig_seed", "fish_cod_angelfish", "food_indonesia", "hat", "human290"),
    *("leaf_blast", "lemon_tree", "lung_scintigraphy", "mandarin", "mixed12", "oil_palm_fruit", "pen", "ppe"),
    *("pug", "rooftop_pv", "street_gulf", "tree_stem", "village_street", "wood_debris"),
)
FURTHER = (
    *("aerial_road", "aircraft_dent", "baby_head", "car_damage_multi", "car_dent_scratch", "cigarette"),
    *("crater", "electricity_pylon", "fasseg_face", "fetal_head", "figaro_hair", "fire_smoke", "football_match"),
    *("hanja_page", "heart_mri", "knee_xray", "leaf_disease", "microfluidic_droplet", "mug"),
    *("pancreatic_islets", "pea_weed", "pill_dish", "pipe_rust", "pipe_wall", "rock", "rock_microct", "shorts"),
    *("stop_button", "stop_yield_sign", "street_garbage", "teeth_panoramic", "tooth_periapical"),
    *("train_vehicle", "tshirt", "vickers_indent", "weapon", "weizmann_horse", "wild_animals7"),
    *("workpiece_parts",),
)
TOLERANCES = {"F": 0.0075, "F, tight": 0.0025}

Mask = NDArray[np.bool_]


class Seen(NamedTuple):
    """A query as the network answered it."""

    name: str  # class
    lead: NDArray[np.float32]  # ``(h, w)`` log-odds
    pixels: NDArray[np.uint8]  # ``(H, W, 3)``
    truth: NDArray[np.uint8]  # ``(H, W)`` in {0, 1, 255}


def bilinear(lead: NDArray[np.float32], pixels: NDArray[np.uint8]) -> Mask:
    """As without sharpening."""
    return mask_map(lead, (pixels.shape[0], pixels.shape[1]), 0.5)


def guided(lead: NDArray[np.float32], pixels: NDArray[np.uint8]) -> Mask:
    """As ``predict(sharpen=True)``."""
    return bilinear(sharpened(lead[None], pixels)[0], pixels)


def joint_bilateral(lead: NDArray[np.float32], pixels: NDArray[np.uint8], spread: float = 0.1) -> Mask:
    """Kopf et al. 2007: a pixel's probability is the mean of 5 x 5 cells', by distance and likeness of colour."""
    (height, width), (h, w) = pixels.shape[:2], lead.shape
    fine = torch.from_numpy(pixels.copy()).movedim(2, 0)[None].float() / 255
    coarse = F.interpolate(fine, (h, w), mode="bilinear", antialias=True)
    cells = F.pad(torch.cat([coarse, torch.from_numpy(lead.copy())[None, None].sigmoid()], 1), (2,) * 4, "replicate")[0]
    y, x = ((torch.arange(full) + 0.5) * few / full - 0.5 for full, few in ((height, h), (width, w)))
    rows, columns = y.round().long(), x.round().long()
    total, weights = torch.zeros(height, width), torch.zeros(height, width)
    for i in range(-2, 3):
        for j in range(-2, 3):
            near = cells[:, rows + i + 2][:, :, columns + j + 2]
            far = ((y - rows - i) ** 2)[:, None] + ((x - columns - j) ** 2)[None]
            weight = torch.exp(-far / 2 - ((near[:3] - fine[0]) ** 2).sum(0) / (2 * spread**2))
            total, weights = total + weight * near[3], weights + weight
    of_picture: Tensor = total / weights > 0.5
    return of_picture.numpy()


WAYS: dict[str, Callable[[NDArray[np.float32], NDArray[np.uint8]], Mask]] = {
    "bilinear": bilinear,
    "guided": guided,
    "joint bilateral": joint_bilateral,
}


def drawn(pictures: PictureSet, count: int) -> list[tuple[str, str, str]]:
    """Class, support and query of each episode, the classes in turn."""
    rng = random.Random(f"edges/{pictures.name}")
    names = [name for name, keys in pictures.classes.items() if len(keys) > 1]
    rng.shuffle(names)
    return [(name, *rng.sample(pictures.classes[name], 2)) for name in (names[i % len(names)] for i in range(count))]


def leads_of(
    segmenter: FewShotSegmenter, pictures: PictureSet, episodes: list[tuple[str, str, str]], cache: Path | None
) -> NDArray[np.float32]:
    """``(N, h, w)`` at the network's grid; of the cache, where they are there."""
    checkpoint = segmenter.engine.identity.sha256[:12]
    file = None if cache is None else cache / f"{pictures.name}-{len(episodes)}-{checkpoint}.npy"
    if file is not None and file.exists():
        return np.asarray(np.load(file), np.float32)
    leads = []
    for name, support, query in episodes:
        mask = pictures.mask(name, support)
        segmenter.clear_supports()
        segmenter.add_support(pictures.picture(support), mask)
        leads.append(segmenter.predict(pictures.picture(query)).leads[0])
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.array(leads))
    return np.array(leads)


def seen_of(
    segmenter: FewShotSegmenter, pictures: PictureSet, count: int, every: int, cache: Path | None
) -> Iterator[Seen]:
    """Every so many of a set's episodes."""
    episodes = drawn(pictures, count)
    leads = leads_of(segmenter, pictures, episodes, cache)
    for (name, _, query), lead in list(zip(episodes, leads, strict=True))[::every]:
        yield Seen(name, lead, pictures.picture(query), pictures.mask(name, query))


def boundary(mask: Mask) -> Mask:
    """Pixels that differ from their right, lower or lower right neighbour, as DAVIS draws it."""
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def boundary_scores(mask: Mask, truth: Mask) -> dict[str, float]:
    """By tolerance: harmonic mean of how much of each boundary lies near the other; a missing one gives 0."""
    edges = boundary(mask), boundary(truth)
    if not (edges[0].any() and edges[1].any()):
        return dict.fromkeys(TOLERANCES, float(edges[0].any() == edges[1].any()))
    far = [distance_transform_edt(~edge) for edge in edges]
    scores = {}
    for name, share in TOLERANCES.items():
        reach = np.ceil(share * np.hypot(*mask.shape))
        precision, recall = (far[1][edges[0]] <= reach).mean(), (far[0][edges[1]] <= reach).mean()
        scores[name] = float(2 * precision * recall / max(1e-9, precision + recall))
    return scores


def set_scores(seen: Iterator[Seen], ways: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Of a set, by way: percent, and milliseconds of making the mask."""
    areas = {way: SegmentationScore() for way in ways}
    edges: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    gained = ("IoU", *TOLERANCES)
    for each in seen:
        for way in ways:
            start = time.perf_counter()
            mask = WAYS[way](each.lead, each.pixels)
            took = 1000 * (time.perf_counter() - start)
            areas[way].add(each.name, mask, each.truth)
            iou = picture_iou(mask, each.truth)
            edges[way].append({"IoU": iou, **boundary_scores(mask, each.truth == 1), "ms": took})
    return {
        way: {"mIoU": 100 * areas[way].miou}
        | {name: 100 * float(np.mean([e[name] for e in edges[way]])) for name in TOLERANCES}
        | {"ms": float(np.median([e["ms"] for e in edges[way]]))}
        | {f"{name} gain": gain(edges[way], edges[ways[0]], name) for name in gained}
        for way in ways
    }


def picture_iou(mask: Mask, truth: NDArray[np.uint8]) -> float:
    """Of what is known."""
    known = truth != 255
    return float((mask & (truth == 1)).sum() / max(1, ((mask | (truth == 1)) & known).sum()))


def gain(scores: list[dict[str, float]], first: list[dict[str, float]], name: str) -> tuple[float, float]:
    """Mean change in points, and its standard error."""
    changes = 100 * np.array([score[name] - before[name] for score, before in zip(scores, first, strict=True)])
    return float(changes.mean()), float(changes.std(ddof=1) / len(changes) ** 0.5)


def table(rows: dict[str, dict[str, dict[str, Any]]], ways: tuple[str, ...]) -> str:
    """Means over the sets, and beside them how the first way's change."""
    names = ("mIoU", *TOLERANCES)
    lines = ["| | " + " | ".join(names) + " | sets that lose mIoU | most lost |", "|---|" + "---|" * (len(names) + 2)]
    for way in ways:
        values = {n: np.array([row[way][n] for row in rows.values()]) for n in names}
        changes = {n: values[n] - np.array([row[ways[0]][n] for row in rows.values()]) for n in names}
        cells = [f"{values[n].mean():.2f} ({changes[n].mean():+.2f})" for n in names]
        lost = changes["mIoU"]
        lines.append(
            f"| {way} | "
            + " | ".join(cells)
            + f" | {(lost < 0).sum()} | {lost.min():+.2f} {list(rows)[lost.argmin()]} |"
        )
    return "\n".join(lines)


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--weights", help="Default: the embedded ones.")
@click.option("--sets", "names", multiple=True, help="Of DATA; chosen, further, all, or names. [default: chosen]")
@click.option("--episodes", default=20, show_default=True, help="Of each set.")
@click.option("--every", default=1, show_default=True, help="Score every so many of them.")
@click.option("--way", "ways", multiple=True, type=click.Choice(list(WAYS)), help="[default: all]")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of log-odds, to compare again in seconds.")
@click.option("--out", type=click.Path(path_type=Path), help="Json file.")
def main(
    data: Path,
    weights: str | None,
    names: tuple[str, ...],
    episodes: int,
    every: int,
    ways: tuple[str, ...],
    cache: Path | None,
    out: Path | None,
) -> None:
    warnings.simplefilter("ignore", IirWarning)
    ways = ways or tuple(WAYS)
    groups = {"chosen": SETS, "further": FURTHER}
    wanted = [each for name in names or ("chosen",) for each in groups.get(name, (name,))]
    sets = [s for s in read_picture_sets(data) if s.name in wanted or "all" in wanted]
    segmenter = FewShotSegmenter(weights)
    rows = {}
    for pictures in sets:
        rows[pictures.name] = set_scores(seen_of(segmenter, pictures, episodes, every, cache), ways)
        click.echo(json.dumps({pictures.name: rows[pictures.name]}), err=True)
    click.echo(table(rows, ways))
    if out is not None:
        identity = segmenter.engine.identity
        head: dict[str, Any] = {
            "weights": identity.name,
            "sha256": identity.sha256,
            "episodes": episodes,
            "every": every,
        }
        out.write_text(json.dumps(head | {"sets": _rounded(rows)}, indent=1) + "\n", encoding="utf-8")


def _rounded(rows: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    return {
        s: {way: {k: np.round(v, 2).tolist() for k, v in of.items()} for way, of in row.items()}
        for s, row in rows.items()
    }


if __name__ == "__main__":
    main()
