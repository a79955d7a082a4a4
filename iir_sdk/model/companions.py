"""Prior maps beside IIR's own, all ours: similarities, dense priors, a dictionary, and the query as its own support.

Which of them a network has, and with how many channels, :func:`prior_maps` lists.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.cam import resize_map
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.encodings import QueryFeatures, SupportState, by_task, for_queries
from iir_sdk.model.prior import mean_over_shots, similarities
from iir_sdk.model.prototypes import area_average, grid_size
from iir_sdk.model.support_state import Prototypes
from iir_sdk.model.tokens import Vectors, full_precision, map_to_tokens, tokens_to_map

_SHARPNESS = 4
_NEAR = 10.0
_LOGIT_SCALE = 8.0
_SMALLEST = 1e-4


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
    if config.dictionary:
        at_mid |= {"among_words": 1, "odds": 1}
    if config.self_support:
        at_mid |= {"self_support": 2}
        at_low |= {"self_support": 2}
    return PriorMaps(at_mid, at_low)


def companion_priors(
    query: QueryFeatures,
    state: SupportState,
    weights: Tensor,
    bias: Tensor,
    temperatures: Tensor,
    joint_temperatures: Tensor | None,
    dictionary: Dictionary | None,
) -> dict[str, Tensor]:
    """Similarities and dense priors at ``mid``'s grid by :func:`prior_maps`' names, each ``(N, C, h, w)`` float32.

    Args:
        query: of ``N`` queries, or of one that all tasks ask for.
        state: of ``N`` tasks.
        weights: ``(N, K)`` of the shots.
        bias: ``(N, 1, T)`` of the tokens.
        temperatures: ``(2,)`` > 0, which cosines at ``mid`` and at ``high`` are divided by for the dense ones.
        joint_temperatures: the same for the prior that sums the two; None for no joint prior.
        dictionary: of further background for the joint one.
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
    if dictionary is None:
        return maps | {"joint": dense_prior(affinity, side, bias)}
    of_words, near = _compared_with_words(query, state, dictionary, joint_temperatures)
    by_words = dictionary_prior(affinity, of_words, near, side, bias, dictionary)
    return maps | {"joint": by_words.among_tokens, "among_words": by_words.among_words, "odds": by_words.odds}


@full_precision
def _compared_with_words(
    query: QueryFeatures, state: SupportState, dictionary: Dictionary, temperatures: Tensor
) -> tuple[Tensor, Tensor]:
    """Affinity of the words with each position of the queries, and with each token of the supports."""
    at_mid = token_affinity(query.mid, dictionary.mid[None], temperatures[0])
    at_high = token_affinity(query.high, dictionary.high[None], temperatures[1])
    near_mid = dictionary.mid.float() / temperatures[0] @ state.tokens.mid.float().transpose(1, 2)
    near_high = dictionary.high.float() / temperatures[1] @ state.tokens.high.float().transpose(1, 2)
    return at_mid + resize_map(at_high, grid_size(at_mid)), near_mid + near_high


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


class Dictionary(nn.Module):
    """What pictures show in general, as a background that every support shares: ``M`` words and how much they count.

    A support's background is what is beside its object; of a query's other things it says nothing. Words, means of
    clusters of many pictures' features, stand in for them, each a unit vector of ``mid`` and one of ``high``: whatever
    resembles a word more than the object is background, and words that resemble the object itself hardly count.
    """

    mid: Tensor
    high: Tensor

    def __init__(self, words: int, mid: int, high: int) -> None:
        super().__init__()
        # Found before training, by clustering; trained ones would be those of the base classes.
        self.register_buffer("mid", nn.functional.normalize(torch.randn(words, mid), dim=1))
        self.register_buffer("high", nn.functional.normalize(torch.randn(words, high), dim=1))
        self.near_scale_log = nn.Parameter(torch.tensor(_NEAR).log())
        self.weight_log = nn.Parameter(torch.tensor(0.0))


class DictionaryPriors(NamedTuple):
    """Maps ``(N, 1, h, w)`` float32."""

    among_tokens: Tensor  # in [0, 1], by the support's tokens alone: :func:`dense_prior`
    among_words: Tensor  # in [0, 1], with the words as further background
    odds: Tensor  # an eighth of the logarithm of the latter's odds, its ends cut off at one in ten thousand


@full_precision
def dictionary_prior(
    affinity: Tensor, of_words: Tensor, near: Tensor, side: Tensor, bias: Tensor, dictionary: Dictionary
) -> DictionaryPriors:
    """Share of foreground among the support's tokens alone, and among them and the words.

    Of affinities: of each query position with each token ``(N, T, h, w)`` and with each word ``of_words (N, M, h, w)``,
    and of each word with each token ``near (N, M, T)``; and of the tokens' shares of foreground ``side (N, T)``.
    """
    foreground = side.float()[:, :, None]
    resembles = (near + bias).softmax(2) @ foreground
    # Together the words weigh as much as all of a support's positions.
    weight = _exponentials(bias)[1] - math.log(near.shape[1]) + dictionary.weight_log
    weight = weight - dictionary.near_scale_log.exp() * resembles
    of_tokens, tokens_sum = _exponentials(map_to_tokens(affinity) + bias)
    _, words_sum = _exponentials(map_to_tokens(of_words) + weight.transpose(1, 2))
    both = of_tokens @ torch.cat([foreground, 1 - foreground], 2) / of_tokens.sum(2, keepdim=True)
    share, rest = both.chunk(2, 2)
    lead = tokens_sum - words_sum
    among_words = share * lead.sigmoid()
    # Summed from its parts and not taken from 1: a runtime in bfloat16 rounds all above 0.998 to 1, and then the odds
    # of the surest foreground are infinite, and the mask is gone.
    others = rest * lead.sigmoid() + (-lead).sigmoid()
    foreground_log, background_log = (t.clamp(_SMALLEST, 1 - _SMALLEST).log() for t in (among_words, others))
    odds = (foreground_log - background_log) / _LOGIT_SCALE
    return DictionaryPriors(*(tokens_to_map(t, grid_size(affinity)) for t in (share, among_words, odds)))


def _exponentials(values: Tensor) -> tuple[Tensor, Tensor]:
    """Exponentials relative to the largest along the last axis, and the logarithm of the sum of the true ones."""
    # Written out: OpenVINO's ReduceLogSumExp is off by a thousandth, and a softmax would take them once more.
    largest = values.amax(2, keepdim=True)
    relative = (values - largest).exp()
    return relative, largest + relative.sum(2, keepdim=True).log()


def self_support_priors(query: QueryFeatures, prior: Tensor) -> tuple[Tensor, Tensor]:
    """How much more each position resembles the query's own foreground than its own background.

    The query is a support of its own: one picture's object is more like itself than like another picture's
    (self-support matching, Fan et al., ECCV 2022).

    Every position counts for the two prototypes by the fourth power of the prior, relative to its largest value, and
    of what it lacks to it. They are means of unit vectors of ``mid`` and ``high`` together, and at ``low`` of ``low``
    alone.

    Args:
        query: of ``N`` queries, or of one that all tasks ask for.
        prior: ``(N, 1, h, w)`` in [0, 1] at ``mid``'s grid.

    Returns:
        ``(N, 2, h, w)`` float32, min-max similarity to the foreground and its lead over the background, and
        ``(N, 2, 2h, 2w)``, the lead at ``low``'s grid and that of ``low``'s own prototypes.
    """
    size, fine = grid_size(query.mid.map), grid_size(query.low.map)
    relative = prior / prior.amax((2, 3), keepdim=True).clamp_min(1e-6)
    shares = torch.cat([relative, 1 - relative], 1) ** _SHARPNESS
    mid = mean_units(query.mid, shares)
    high = mean_units(query.high, area_average(shares, grid_size(query.high.map)))
    low = mean_units(query.low, resize_map(shares, fine))
    mid, high = F.normalize(torch.cat([mid, high], 2), dim=2).split([mid.shape[2], high.shape[2]], 2)
    cosines = similarities(query.mid, mid) + resize_map(similarities(query.high, high), size)
    of_low = similarities(query.low, F.normalize(low, dim=2))
    lead, lead_of_low = (maps[:, :1] - maps[:, 1:] for maps in (cosines, of_low))
    at_mid = torch.cat([similarity_prior(cosines[:, :1]), lead], 1)
    return at_mid, torch.cat([resize_map(lead, fine), lead_of_low], 1)


@full_precision
def mean_units(query: Vectors, shares: Tensor) -> Tensor:
    """Means ``(N, M, C)`` of a map's unit vectors with the weights ``shares (N, M, h, w)``."""
    rows = for_queries((shares / query.lengths).flatten(2), len(query.map))
    sums = by_task(rows @ map_to_tokens(query.map.float()), len(shares))
    return sums / shares.sum((2, 3)).clamp_min(1e-6)[..., None]
