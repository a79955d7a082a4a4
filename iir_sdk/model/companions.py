"""Prior maps beside IIR's own, all ours: similarities and dense priors.

Which of them a network has, and with how many channels, :func:`prior_maps` lists.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iir_sdk.model.cam import resize_map
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.encodings import QueryFeatures, SupportState, by_task, for_queries
from iir_sdk.model.prior import mean_over_shots, similarities
from iir_sdk.model.prototypes import grid_size
from iir_sdk.model.support_state import Prototypes
from iir_sdk.model.tokens import Vectors, full_precision, map_to_tokens, tokens_to_map


class PriorMaps(NamedTuple):
    """Channels of each prior map by its name, in the order in which the decoder reads them."""

    at_mid: dict[str, int]  # at ``mid``'s grid, for the query's fusion
    at_low: dict[str, int]  # at ``low``'s grid, for the mask head


def prior_maps(config: ModelConfig) -> PriorMaps:
    """The maps of an architecture: IIR's own first, then its companions."""
    at_mid, at_low = {"iir": 1}, {"iir": 1}
    if config.light:
        at_mid |= {"low": 2, "mid": 2, "high": 2, "dense_mid": 1, "dense_high": 1}
        at_low |= {"low": 2}
    if config.joint_priors:
        at_mid |= {"joint": 1, "pooled": 2}
    return PriorMaps(at_mid, at_low)


def companion_priors(
    query: QueryFeatures,
    state: SupportState,
    weights: Tensor,
    bias: Tensor,
    temperatures: Tensor,
    joint_temperatures: Tensor | None,
) -> dict[str, Tensor]:
    """Similarities and dense priors at ``mid``'s grid by :func:`prior_maps`' names, each ``(N, C, h, w)`` float32.

    Args:
        query: of ``N`` queries, or of one that all tasks ask for.
        state: of ``N`` tasks.
        weights: ``(N, K)`` of the shots.
        bias: ``(N, 1, T)`` of the tokens.
        temperatures: ``(2,)`` > 0, which cosines at ``mid`` and at ``high`` are divided by for the dense ones.
        joint_temperatures: the same for the prior that sums the two; None for no joint prior.
    """
    size, side = grid_size(query.mid.map), state.tokens.side
    at_mid = token_affinity(query.mid, state.tokens.mid, temperatures[0])
    at_high = token_affinity(query.high, state.tokens.high, temperatures[1])
    maps = {
        "mid": similarity_priors(query.mid, state.mid, weights),
        "high": resize_map(similarity_priors(query.high, state.high, weights), size),
        "dense_mid": dense_prior(at_mid, side, bias),
        "dense_high": resize_map(dense_prior(at_high, side, bias), size),
    }
    if joint_temperatures is None:
        return maps
    assert query.pooled is not None
    maps["pooled"] = resize_map(similarity_priors(query.pooled, state.pooled, weights), size)
    share = temperatures / joint_temperatures
    affinity = at_mid * share[0] + resize_map(at_high * share[1], size)
    return maps | {"joint": dense_prior(affinity, side, bias)}


def similarity_priors(query: Vectors, prototypes: Prototypes[Tensor], weights: Tensor) -> Tensor:
    """Min-max similarity to the foreground prototype, and its lead over the background one: ``(N, 2, h, w)``."""
    cosines = similarities(query, torch.cat([prototypes.foreground, prototypes.background], 1))
    foreground, background = cosines.chunk(2, 1)
    pair = (similarity_prior(foreground), foreground - background)
    return torch.cat([mean_over_shots(maps, weights) for maps in pair], 1)


def similarity_prior(similarity: Tensor) -> Tensor:
    """Min-max over each whole map: ``(N, K, h, w)`` to [0, 1]."""
    low, high = similarity.amin((2, 3), keepdim=True), similarity.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 1e-6, (similarity - low) / spread.clamp_min(1e-6), 0)


@full_precision
def token_affinity(query: Vectors, tokens: Tensor, temperature: Tensor) -> Tensor:
    """Cosine over temperature of each query position with each of ``tokens (N, T, C)``, unit vectors.

    Float32 ``(N, T, h, w)``, channels last in memory: a softmax over the tokens reads them in a row.
    """
    affinity = map_to_tokens(query.map.float()) @ (tokens.float() / temperature).transpose(1, 2)
    return tokens_to_map(affinity / map_to_tokens(query.lengths), grid_size(query.map))


@full_precision
def dense_prior(affinity: Tensor, side: Tensor, bias: Tensor) -> Tensor:
    """Share of foreground among the support tokens that each query position resembles: ``(N, 1, h, w)`` in [0, 1].

    A softmax over the tokens of their affinity ``(N, T, h, w)``, summed over their sides ``(N, T)`` (the dense
    attention of DCAMA, Shi et al., ECCV 2022, without learned projections).
    """
    attention = (map_to_tokens(affinity) + bias).softmax(2)
    return tokens_to_map(attention @ side.float()[:, :, None], grid_size(affinity))


@full_precision
def mean_units(query: Vectors, shares: Tensor) -> Tensor:
    """Means ``(N, M, C)`` of a map's unit vectors with the weights ``shares (N, M, h, w)``."""
    rows = for_queries((shares / query.lengths).flatten(2), len(query.map))
    sums = by_task(rows @ map_to_tokens(query.map.float()), len(shares))
    return sums / shares.sum((2, 3)).clamp_min(1e-6)[..., None]
