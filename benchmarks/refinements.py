"""What IIR's two refinements find to work with: ``python benchmarks/refinements.py WEIGHTS --data COCO --fold 3``.

Measured at the grid of ``mid`` on 1-shot episodes of classes that the checkpoint was not trained on. All figures are
means over the episodes that have them, in percent.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import ConfigError
from iir_sdk.model import prior as priors
from iir_sdk.model.attention import Attention, inconsistent_pairs
from iir_sdk.model.backbone import Taps, taps_of
from iir_sdk.model.cam import THRESHOLDS, ProxyClass, class_activation, proxy_class, resize_map
from iir_sdk.model.cross_step import support_labels
from iir_sdk.model.iir import IIR
from iir_sdk.model.prototypes import dual_prototypes, grid_size, masked_average, resize_mask
from iir_sdk.model.query import QueryFeatures
from iir_sdk.model.query_priors import iir_prior, similarity_priors
from iir_sdk.model.state import SupportState
from iir_sdk.torch_engine import resized_by_torch
from iir_sdk.training.data.dataset import IGNORE, FewShotDataset
from iir_sdk.training.data.episodes import Episode, large_enough, sample_episodes
from iir_sdk.training.data.folder import coco_fold, read_picture_sets
from iir_sdk.training.step import known_share

Figures = dict[str, float]


def episode_figures(model: IIR, support: Taps, mask: Tensor, query: Taps, target: Tensor) -> Figures:
    """Of one episode: ``mask (1, 1, H, W)`` in [0, 1] of the support, ``target (1, H, W)`` labels of the query."""
    size = grid_size(query.mid)
    share = known_share(target, size)
    truth, known = (share > 0.5)[:, None], (share >= 0)[:, None]
    if not (truth & known).any():
        return {}
    state = model.encode_support_taps(support, mask, 1, 1).state
    found = dual_figures(model, support, mask, truth, known, state, query)
    return found | dropout_figures(model, state, query, share)


def dual_figures(
    model: IIR, support: Taps, mask: Tensor, truth: Tensor, known: Tensor, state: SupportState, query: Taps
) -> Figures:
    """Whether the activated region tells anything, and whether two prototypes find more than one."""
    size = grid_size(query.mid)
    features = model.read_query(query)
    share = resize_mask(mask, size)
    proxy = proxy_class(model.backbone, support.mid, support.high, mask)
    cam_support, cam_query = (activation(model, taps, proxy, size) for taps in (support, query))
    threshold = state.threshold.float()[:, :, None, None]
    activated, activated_query = cam_support > threshold, cam_query > threshold
    high = resize_map(support.high.float(), size)
    dual = dual_prototypes(high, share, activated.float())
    core_share = float((share * activated).sum() / share.sum())
    background = masked_average(high, 1 - share)
    weights = torch.ones(1, 1)
    similar = similarity_priors(features, "high", state, weights)
    regions = iir_prior(features, state, activated_query, weights)
    return {
        "the activated region covers all of the support's mask": float(core_share > 0.99),
        "it covers none of it": float(core_share < 0.01),
        "share of the mask that is activated": core_share,
        "IoU of activated region and mask, support": iou(activated, share > 0.5, torch.ones_like(known)),
        "IoU of activated region and truth, query": iou(activated_query, truth, known),
        "the same, threshold chosen by the query's truth": best_iou(cam_query, truth, known),
        "cosine of core and local prototype": cosine(dual.core, dual.local),
        "cosine of core and background": cosine(dual.core, background),
        "cosine of local and background": cosine(dual.local, background),
        "best IoU of IIR's prior (two prototypes, two regions)": best_iou(regions, truth, known),
        "best IoU of similarity to the core prototype": best_iou(cosine_prior(features, state.core_high), truth, known),
        "best IoU of similarity to the whole prototype": best_iou(resize_map(similar[:, :1], size), truth, known),
        "best IoU of its lead over the background's": best_iou(scaled(resize_map(similar[:, 1:], size)), truth, known),
    }


def activation(model: IIR, taps: Taps, proxy: ProxyClass, size: tuple[int, int]) -> Tensor:
    """The proxy class's activation map ``(1, 1, *size)`` in [0, 1]."""
    shot = ProxyClass(proxy.index[:, None], proxy.weight[:, None])
    pooled = model.backbone.pooled_map(taps.high) if model.config.cam == "closed_form" else None
    return resize_map(class_activation(model.backbone, taps.mid, pooled, shot), size)


def cosine_prior(features: QueryFeatures, prototypes: Tensor) -> Tensor:
    """Similarity to unit ``prototypes (1, 1, C)`` of ``high``, scaled to [0, 1], at ``mid``'s grid."""
    found = priors.similarity_map(*features.compared("high"), prototypes.float())
    return scaled(resize_map(found, grid_size(features.taps.mid)))


def scaled(maps: Tensor) -> Tensor:
    """Min-max to [0, 1]."""
    return priors.similarity_prior(maps.float())


def cosine(one: Tensor, other: Tensor) -> float:
    """Of two vectors ``(1, C)``."""
    return float(F.cosine_similarity(one.float(), other.float()))


def iou(found: Tensor, truth: Tensor, known: Tensor) -> float:
    """Of two bool maps, where ``known``."""
    inter, union = (found & truth & known).sum(), ((found | truth) & known).sum()
    return float(inter / union.clamp_min(1))


def best_iou(soft: Tensor, truth: Tensor, known: Tensor) -> float:
    """Over 51 thresholds of a map in [0, 1]: how well it ranks positions."""
    return max(iou(soft > t, truth, known) for t in THRESHOLDS)


def dropout_figures(model: IIR, state: SupportState, query: Taps, share: Tensor) -> Figures:
    """How much of cross attention the cut pairs hold, and how much of it goes astray."""
    labels = torch.where(share < 0, IGNORE, (share > 0.5).long()).flatten(1)
    of_support = support_labels(state)
    seen: list[tuple[Attention, Tensor, Tensor, Tensor]] = []

    def keep(attention: Attention, inputs: tuple) -> None:  # type: ignore[type-arg]
        tokens, other, bias = inputs
        seen.append((attention, tokens, other.keys, bias))

    crossing = [block.cross_attention for block in model.decoder.blocks if block.cross_attention is not None]
    hooks = [cross.attention.register_forward_pre_hook(keep) for cross in crossing]
    model.decode(query, state)
    for hook in hooks:
        hook.remove()
    each = [of_one_attention(*parts, labels, of_support) for parts in seen]
    return {name: sum(found[name] for found in each) / len(each) for name in each[0]}


def of_one_attention(
    attention: Attention, tokens: Tensor, keys: Tensor, bias: Tensor, labels: Tensor, of_support: Tensor
) -> Figures:
    """Of query ``tokens (1, P, d)`` over ``keys (1, T, d)``, with their labels."""
    affinity = attention.affinity(tokens, keys)
    drop = inconsistent_pairs(affinity, labels, of_support)
    heads = attention.heads
    asked, offered = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (attention.to_query(tokens), keys))
    mass = (asked @ offered.transpose(2, 3) / asked.shape[3] ** 0.5 + bias[:, None]).softmax(3).mean(1)
    known = of_support != IGNORE
    conflicts = drop.any(1)
    to_object = mass @ ((of_support == 1).float()[:, :, None])
    inside, outside = (to_object[0, labels[0] == value, 0].mean() for value in (1, 0))
    figures = {
        "support tokens whose best match in the query conflicts": conflicts[known],
        "the same, tokens of the object": conflicts[known & (of_support == 1)],
        "the same, tokens of the background": conflicts[known & (of_support == 0)],
        "pairs that are cut": drop[:, :, known[0]],
        "attention that the cut pairs hold": (mass * drop).sum(2),
        "query positions that lose a pair": drop.any(2),
        "attention of such positions that they lose": (mass * drop).sum(2)[drop.any(2)],
    }
    means = {name: float(values.float().mean()) for name, values in figures.items()}
    for name, alike in (("dot product", affinity), ("attention weight, mean of the heads", mass)):
        matches = alike[0].argmax(0)[known[0]]
        means[f"distinct best matches, of as many as there are tokens, by {name}"] = len(matches.unique()) / len(
            matches
        )
    astray = {
        "attention to the object's tokens, from the object": float(inside),
        "attention to the object's tokens, from the background": float(outside),
    }
    return means | astray


class Episodes:
    """Taps and labels of a set's episodes; each picture's taps are computed once a role."""

    def __init__(self, segmenter: FewShotSegmenter, pictures: FewShotDataset) -> None:
        self.engine, self.pictures = segmenter.torch_engine, pictures

    def figures(self, episode: Episode) -> Figures:
        """Of one."""
        (key,) = episode.supports
        pixels = self.pictures.picture(key)
        mask = self.pictures.mask(episode.name, key) == 1
        image, share = self.engine.preprocessing.support(pixels, mask, resize=resized_by_torch)
        support = taps_of(self.engine.model.backbone, torch.from_numpy(image)[None])
        query = self.engine.taps([self.pictures.picture(episode.query)])
        target = torch.from_numpy(self.pictures.mask(episode.name, episode.query)).long()[None]
        return episode_figures(self.engine.model, support, torch.from_numpy(share)[None, None], query, target)


def table(means: Figures, heading: str) -> str:
    """In Markdown."""
    rows = [f"| {name} | {100 * value:.{2 if value < 0.01 else 1}f} |" for name, value in means.items()]
    return "\n".join([heading, "", "| | % |", "|---|---|", *rows]) + "\n"


@click.command()
@click.argument("weights")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="A set of pictures with COCO's classes.")
@click.option("--fold", type=click.IntRange(0, 3), required=True, help="The classes that WEIGHTS never saw.")
@click.option("--episodes", default=300, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of refinements.json and .md.")
@torch.inference_mode()
def main(weights: str, data: Path, fold: int, episodes: int, out: Path) -> None:
    """Measure, print the table and write it."""
    segmenter = FewShotSegmenter(weights, device="cpu")
    if not segmenter.model.config.cross_blocks:
        raise ConfigError(f"{weights} has no cross attention, so nothing of it can be measured.")
    each = [figures for pictures in read_picture_sets(data) for figures in of_set(segmenter, pictures, fold, episodes)]
    means = mean_figures(each)
    checkpoint = segmenter.checkpoint
    heading = f"{checkpoint.name}, {len(each)} episodes of fold {fold}'s classes, 1-shot, seed 0"
    document = {"of": heading, "sha256": checkpoint.sha256, "means": means}
    out.mkdir(parents=True, exist_ok=True)
    (out / "refinements.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (out / "refinements.md").write_text(table(means, heading), "utf-8")
    click.echo(table(means, heading))


def of_set(segmenter: FewShotSegmenter, pictures: FewShotDataset, fold: int, episodes: int) -> list[Figures]:
    """Of each episode whose object is seen at ``mid``'s grid."""
    novel = pictures.only([name for name in coco_fold(fold) if name in pictures.classes])
    drawn = sample_episodes(large_enough(novel, 0.01), shots=1, count=episodes, seed=0)
    measured = Episodes(segmenter, novel)
    return [found for episode in tqdm(drawn, desc=pictures.name) if (found := measured.figures(episode))]


def mean_figures(each: list[Figures]) -> Figures:
    """Each over the episodes that have it: NaN where one has no such token."""
    values = {name: [figures[name] for figures in each if not math.isnan(figures[name])] for name in each[0]}
    return {name: sum(of) / len(of) for name, of in values.items() if of}


if __name__ == "__main__":
    main()
