"""What frozen features find by themselves: ``python benchmarks/towers.py DATA --vit-weights FILE --out OUT``.

One support, one query, no training: each position of the query is compared with the support's, by the log-sum-exp of
cosines over 0.06 to the object's positions minus that to the background's. A set's IoU is at the threshold that fits
it best, beside the mean average precision. Supports are cut and resized as the package does, queries seen at 480 px.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.data.folder import PictureSet, read_picture_sets
from iir_sdk.model.backbone import Backbone, create_network
from iir_sdk.pictures.preprocess import Preprocessing, resized_map
from iir_sdk.training.convert import load_backbone_weights, read_state

SETS = (
    *("coco", "face_parts", "car_panel", "magnetic_tile", "leaf_disease", "aerial_building_ru", "dsb2018"),
    *("breadboard", "retina_vessels", "facade", "camvid", "car_dent_scratch"),
)
QUERY, SUPPORT, SCORED = 480, 384, 120
TEMPERATURE = 0.06
BLOCKS = (6, 9, 12)
VIT_SIZES = {"67": (320, 256), "80": (384, 304)}
"""Sides of a query and a support as the ViT sees them, by the share of the CNN's in percent."""

COMBINATIONS = {
    " ".join(maps).replace("@67", "").replace("@80", " (80 %)"): maps
    for maps in (
        *(("c16",), ("c16", "c32"), ("b9@67", "b12@67"), ("b6@67", "b9@67", "b12@67"), ("b9@80", "b12@80")),
        *(("c16", "b9@67"), ("c16", "b12@67"), ("c16", "b6@67", "b9@67"), ("c16", "b6@67", "b12@67")),
        *(("c16", "b9@67", "b12@67"), ("c16", "b9@80", "b12@80"), ("c16", "b6@67", "b9@67", "b12@67")),
        *(("c16", "c32", "b9@67"), ("c16", "c32", "b12@67"), ("c16", "c32", "b6@67", "b9@67")),
        *(("c16", "c32", "b9@67", "b12@67"), ("c16", "c32", "b9@80", "b12@80")),
        *(("c16", "c32", "b6@67", "b9@67", "b12@67"), ("d16", "b9@80", "b12@80")),
    )
}
"""Maps whose cosines count alike: of Lite2 at two strides (c), of Lite0 (d), of ViT blocks (b)."""


class Episode(NamedTuple):
    """A support as the network sees it, and a query with its mask ``(120, 120)``."""

    name: str
    support: Tensor
    mask: Tensor
    query: Tensor
    truth: Tensor


def episodes(pictures: PictureSet, count: int, seed: str) -> list[tuple[str, str, str]]:
    """Class, support and query of each, the classes in turn."""
    rng = random.Random(f"{seed}/{pictures.name}")
    names = [n for n, keys in pictures.classes.items() if len(keys) > 1]
    rng.shuffle(names)
    return [(n, *rng.sample(pictures.classes[n], 2)) for n in (names[i % len(names)] for i in range(count))]


def read(pictures: PictureSet, sides: Preprocessing, name: str, support: str, query: str) -> Episode | None:
    """An episode's tensors; None where a mask leaves no background or is empty."""
    mask, truth = (pictures.mask(name, key) for key in (support, query))
    if not 0 < (mask == 1).sum() < mask.size or not (truth == 1).any():
        return None
    cut = sides.support(pictures.picture(support), mask == 1, mask != 255)
    scored = resized_map((truth == 1).astype(np.float32), (SCORED, SCORED)) >= 0.5
    if not scored.any():
        return None
    image = torch.from_numpy(sides.image(pictures.picture(query)))[None]
    support_mask = torch.from_numpy(cut.mask)[None, None]
    return Episode(name, torch.from_numpy(cut.image)[None], support_mask, image, torch.from_numpy(scored))


def vit_maps(vit: Any, image: Tensor, side: int) -> dict[str, Tensor]:
    """Patch tokens after some blocks, ``(1, 192, side / 16, side / 16)``; the last normed."""
    x = F.interpolate(image, (side, side), mode="bilinear", align_corners=False) if image.shape[2] != side else image
    maps = vit.forward_intermediates(x, indices=[b - 1 for b in BLOCKS], intermediates_only=True)
    named = {f"b{b}": m for b, m in zip(BLOCKS, maps, strict=True)}
    named["b12"] = vit.norm(named["b12"].movedim(1, 3)).movedim(3, 1)
    return named


class Towers(nn.Module):
    """All networks whose maps are compared."""

    def __init__(self, vit_weights: Path) -> None:
        super().__init__()
        self.lite2, self.lite0 = Backbone("tf_efficientnet_lite2"), Backbone("tf_efficientnet_lite0")
        for net, name in ((self.lite2, "tf_efficientnet_lite2"), (self.lite0, "tf_efficientnet_lite0")):
            load_backbone_weights(net, name)
        self.vit = create_network("vit_tiny_patch16_224", dynamic_img_size=True).eval()
        self.vit.load_state_dict({k: v.float() for k, v in read_state(vit_weights).items()})

    def forward(self, image: Tensor, which: int) -> dict[str, Tensor]:
        """Maps by name; ``which`` is 0 of a query and 1 of a support."""
        _, c16, c32 = self.lite2(image)
        maps = {"c16": c16, "c32": c32, "d16": self.lite0(image).mid}
        computed: dict[int, dict[str, Tensor]] = {}
        for share, sides in VIT_SIZES.items():
            side = sides[which]
            if side not in computed:
                computed[side] = vit_maps(self.vit, image, side)
            maps |= {f"{name}@{share}": m for name, m in computed[side].items()}
        return maps


def unit_tokens(maps: dict[str, Tensor], names: tuple[str, ...], grid: int) -> Tensor:
    """Each position's unit vectors of all maps at one grid, ``(grid ** 2, C)``; a product is the cosines' mean."""
    units = [F.normalize(F.interpolate(maps[n], (grid, grid), mode="bilinear"), dim=1) for n in names]
    return torch.cat(units, 1).flatten(2)[0].T / len(names) ** 0.5


def prior(support: dict[str, Tensor], query: dict[str, Tensor], mask: Tensor, names: tuple[str, ...]) -> Tensor:
    """``(120, 120)``: how much more the query's positions resemble the object's than the background's."""
    grids = SUPPORT // 16, QUERY // 16
    share = F.adaptive_avg_pool2d(mask, grids[0]).flatten()
    affinity = unit_tokens(query, names, grids[1]) @ unit_tokens(support, names, grids[0]).T / TEMPERATURE
    lead = (affinity + share.log()).logsumexp(1) - (affinity + (1 - share).log()).logsumexp(1)
    square = lead.nan_to_num(posinf=60, neginf=-60).reshape(1, 1, grids[1], grids[1])
    return F.interpolate(square, (SCORED, SCORED), mode="bilinear", align_corners=False)[0, 0]


def average_precision(values: Tensor, truth: Tensor) -> float:
    """Of a map's positions in descending order."""
    hits = truth.flatten()[values.flatten().argsort(descending=True)].float()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


THRESHOLDS = torch.linspace(-20, 20, 161)


def areas(values: Tensor, truth: Tensor) -> Tensor:
    """Intersections and unions ``(2, 161)`` at each threshold."""
    # Counted by histogram: above a threshold, and of these the true ones.
    bins = torch.bucketize(values.flatten().contiguous(), THRESHOLDS)
    counts = [torch.bincount(b, minlength=162).flip(0).cumsum(0).flip(0)[1:] for b in (bins, bins[truth.flatten()])]
    return torch.stack([counts[1], counts[0] + truth.sum() - counts[1]]).double()


def best_iou(sums: dict[str, Tensor]) -> float:
    """Mean over the classes at the threshold that is best for it."""
    return float(torch.stack([s[0] / s[1].clamp_min(1) for s in sums.values()]).mean(0).max())


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--vit-weights", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Json file.")
@click.option("--episodes", "count", default=12, show_default=True, help="Of each set; of COCO four times as many.")
@click.option("--seed", default="towers", show_default=True, help="Of the draw.")
def main(data: Path, vit_weights: Path, out: Path, count: int, seed: str) -> None:
    """Score every combination on every set."""
    towers, sides = Towers(vit_weights), Preprocessing(size=QUERY, support_size=SUPPORT)
    table: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for name in SETS:
        pictures = read_picture_sets(data / name)[0]
        sums: dict[str, dict[str, Tensor]] = {
            c: defaultdict(lambda: torch.zeros(2, 161).double()) for c in COMBINATIONS
        }
        precisions: dict[str, list[float]] = defaultdict(list)
        for drawn in episodes(pictures, count * (4 if name == "coco" else 1), seed):
            episode = read(pictures, sides, *drawn)
            if episode is None:
                continue
            with torch.inference_mode():
                support, query = towers(episode.support, 1), towers(episode.query, 0)
                for combination, maps in COMBINATIONS.items():
                    values = prior(support, query, episode.mask, maps)
                    sums[combination][episode.name] += areas(values, episode.truth)
                    precisions[combination].append(average_precision(values, episode.truth))
        for combination in COMBINATIONS:
            aps = precisions[combination]
            iou = best_iou(sums[combination])
            table[combination][name] = (round(100 * iou, 1), round(100 * sum(aps) / len(aps), 1))
        print(name, len(aps), flush=True)
        out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
