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
from tqdm import tqdm

from iir_sdk import FewShotSegmenter
from iir_sdk.cli.evaluate import sets_of
from iir_sdk.data.dataset import IGNORE, FewShotDataset
from iir_sdk.data.episodes import Episode
from iir_sdk.engines.pytorch import TorchEngine
from iir_sdk.errors import ConfigError
from iir_sdk.evaluation.evaluate import Protocol, draw_episodes
from iir_sdk.model.attention import Attention, inconsistent_pairs, support_labels
from iir_sdk.model.backbone import Taps, taps_of
from iir_sdk.model.cam import THRESHOLDS, class_activation, resize_map
from iir_sdk.model.companions import similarity_prior
from iir_sdk.model.encodings import QueryFeatures, SupportState
from iir_sdk.model.iir import IIR
from iir_sdk.model.prior import query_prior, similarities
from iir_sdk.model.prototypes import grid_size, resize_mask
from iir_sdk.training.run.step import cell_labels, known_share

Figures = dict[str, float]


def episode_figures(model: IIR, support: Taps, mask: Tensor, query: Taps, target: Tensor) -> Figures:
    """Of one episode: ``mask (1, 1, H, W)`` in [0, 1] of the support, ``target (1, H, W)`` labels of the query."""
    share = known_share(target, grid_size(query.mid))
    truth, known = (share > 0.5)[:, None], (share >= 0)[:, None]
    if not (truth & known).any():
        return {}
    state = model.encode_support_taps(support, mask, 1, 1).state
    features = model.read_query(query)
    of_regions = dual_figures(model, state, support, mask, features, truth, known)
    return of_regions | dropout_figures(model, state, features, cell_labels(share).flatten(1))


def dual_figures(
    model: IIR, state: SupportState, support: Taps, mask: Tensor, query: QueryFeatures, truth: Tensor, known: Tensor
) -> Figures:
    """Whether the activated region tells anything, and whether two prototypes find more than one."""
    size, taps = grid_size(query.mid.map), Taps(query.low.map, query.mid.map, query.high.map)
    share = resize_mask(mask, grid_size(support.mid))
    cam_support, cam_query = (activation(model, seen, state) for seen in (support, taps))
    threshold = state.threshold[:, :, None, None]
    activated, activated_query = cam_support > threshold, cam_query > threshold
    core_share = float((share * activated).sum() / share.sum())
    prototypes = torch.cat([state.core_high, state.high.foreground, state.high.background], 1)
    core, whole, background = resize_map(similarities(query.high, prototypes), size).chunk(3, 1)
    regions = query_prior(query, state, activated_query, torch.ones(1, 1))
    return {
        "the activated region covers all of the support's mask": float(core_share > 0.99),
        "it covers none of it": float(core_share < 0.01),
        "share of the mask that is activated": core_share,
        "IoU of activated region and mask, support": iou(activated, share > 0.5, share >= 0),
        "IoU of activated region and truth, query": iou(activated_query, truth, known),
        "the same, threshold chosen by the query's truth": best_iou(cam_query, truth, known),
        "cosine of core and local prototype": float((state.core_high * state.local_high).sum()),
        "cosine of core and background": float((state.core_high * state.high.background).sum()),
        "cosine of local and background": float((state.local_high * state.high.background).sum()),
        "best IoU of IIR's prior (two prototypes, two regions)": best_iou(regions, truth, known),
        "best IoU of similarity to the core prototype": best_iou(similarity_prior(core), truth, known),
        "best IoU of similarity to the whole prototype": best_iou(similarity_prior(whole), truth, known),
        "best IoU of its lead over the background's": best_iou(similarity_prior(whole - background), truth, known),
    }


def activation(model: IIR, taps: Taps, state: SupportState) -> Tensor:
    """The map ``(1, 1, h, w)`` in [0, 1] of the support's proxy class, at the grid of the picture's own ``mid``."""
    pooled = model.backbone.pooled_map(taps.high) if model.config.cam == "closed_form" else None
    return resize_map(class_activation(model.backbone, taps.mid, pooled, state.proxy), grid_size(taps.mid))


def iou(mask: Tensor, truth: Tensor, known: Tensor) -> float:
    """Of two bool maps, where ``known``."""
    inter, union = (mask & truth & known).sum(), ((mask | truth) & known).sum()
    return float(inter / union.clamp_min(1))


def best_iou(soft: Tensor, truth: Tensor, known: Tensor) -> float:
    """Over 51 thresholds of a map in [0, 1]: how well it ranks positions."""
    return max(iou(soft > t, truth, known) for t in THRESHOLDS)


def dropout_figures(model: IIR, state: SupportState, query: QueryFeatures, labels: Tensor) -> Figures:
    """How much of cross attention the cut pairs hold, and how much of it goes astray; ``labels (1, h*w)``."""
    of_support = support_labels(state.tokens)
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
    return {name: sum(figures[name] for figures in each) / len(each) for name in each[0]}


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
        distinct = len(matches.unique()) / len(matches)
        means[f"distinct best matches, of as many as there are tokens, by {name}"] = distinct
    astray = {
        "attention to the object's tokens, from the object": float(inside),
        "attention to the object's tokens, from the background": float(outside),
    }
    return means | astray


def figures_of(engine: TorchEngine, pictures: FewShotDataset, episode: Episode) -> Figures:
    """Of one 1-shot episode of a set."""
    (key,) = episode.supports
    mask = pictures.mask(episode.name, key) == 1
    image, share, _ = engine.identity.preprocessing.support(pictures.picture(key), mask)
    support = taps_of(engine.model.backbone, torch.from_numpy(image)[None])
    asked = engine.identity.preprocessing.image(pictures.picture(episode.query))
    query = taps_of(engine.model.backbone, torch.from_numpy(asked)[None])
    target = torch.from_numpy(pictures.mask(episode.name, episode.query)).long()[None]
    return episode_figures(engine.model, support, torch.from_numpy(share)[None, None], query, target)


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
    each = [figures for pictures in sets_of(data, None, fold) for figures in of_set(segmenter, pictures, episodes)]
    means = mean_figures(each)
    checkpoint = segmenter.checkpoint
    heading = f"{checkpoint.name}, {len(each)} episodes of fold {fold}'s classes, 1-shot, seed 0"
    document = {"of": heading, "sha256": checkpoint.sha256, "means": means}
    out.mkdir(parents=True, exist_ok=True)
    (out / "refinements.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (out / "refinements.md").write_text(table(means, heading), "utf-8")
    click.echo(table(means, heading))


def of_set(segmenter: FewShotSegmenter, pictures: FewShotDataset, episodes: int) -> list[Figures]:
    """Of each episode whose object is seen at ``mid``'s grid."""
    (drawn,) = draw_episodes(pictures, Protocol(episodes=episodes)).values()
    each = (figures_of(segmenter.torch_engine, pictures, e) for e in tqdm(drawn, desc=pictures.name, unit="episode"))
    return [figures for figures in each if figures]


def mean_figures(each: list[Figures]) -> Figures:
    """Each over the episodes that have it: NaN where one has no such token."""
    values = {name: [figures[name] for figures in each if not math.isnan(figures[name])] for name in each[0]}
    return {name: sum(of) / len(of) for name, of in values.items() if of}


if __name__ == "__main__":
    main()
