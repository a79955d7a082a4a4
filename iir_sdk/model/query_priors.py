"""The prior maps of a query by a support's kept state: IIR's own and its companions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.model import prior as priors
from iir_sdk.model.backbone import Taps
from iir_sdk.model.cam import resize_map
from iir_sdk.model.dictionary import Dictionary, dictionary_prior
from iir_sdk.model.precision import full_precision
from iir_sdk.model.prototypes import grid_size, masked_average, resize_mask
from iir_sdk.model.query import QueryFeatures
from iir_sdk.model.state import SupportState

_SIDES = ("foreground", "background")


class Temperatures(NamedTuple):
    """Logarithms of what divides the cosines of the dense priors.

    Attributes:
        dense: ``(2,)``, at ``mid`` and at ``high``.
        joint: ``(2,)``, of the two in the prior that sums them; None where none does.
    """

    dense: Tensor
    joint: Tensor | None


def iir_prior(query: QueryFeatures, state: SupportState, activated: Tensor, weights: Tensor) -> Tensor:
    """IIR's prior (method, section 2, step 5), mean over the shots: ``(N, 1, h, w)`` float32 in [0, 1].

    Args:
        query: of ``N`` queries, or of one that all tasks ask for.
        state: of ``N`` tasks.
        activated: ``(N, K, h, w)`` bool, at the grid of the outcome.
        weights: ``(N, K)`` of the shots.
    """
    found = similarities(query, "high", torch.cat([state.core_high, state.local_high], 1))
    core, local = resize_map(found, grid_size(activated)).chunk(2, 1)
    return priors.mean_over_shots(priors.region_prior(core, local, activated), weights)


def companion_priors(
    query: QueryFeatures,
    state: SupportState,
    weights: Tensor,
    biases: tuple[Tensor, Tensor],
    temperatures: Temperatures,
    dictionary: Dictionary | None = None,
) -> tuple[list[Tensor], Tensor | None]:
    """Similarities and dense priors at ``mid``'s grid, each ``(N, C, h, w)`` float32.

    Args:
        query: of ``N`` queries, or of one that all tasks ask for.
        state: of ``N`` tasks.
        weights: ``(N, K)`` of the shots.
        biases: of the two lists of tokens, ``(N, 1, T)`` and ``(N, 1, T')``.
        temperatures: of the dense ones.
        dictionary: of further background for the joint one.

    Returns:
        All of them, and the surest among them ``(N, 1, h, w)``: the joint one, with a dictionary that among its words;
        None without a joint one.
    """
    size = grid_size(query.taps.mid)
    mid, high = (similarity_priors(query, name, state, weights) for name in ("mid", "high"))
    dense = temperatures.dense.exp()
    at_mid = priors.token_affinity(*query.compared("mid"), state.dense_mid, dense[0])
    at_high = priors.token_affinity(*query.compared("high"), state.dense_high, dense[1])
    dense_mid = priors.dense_prior(at_mid, state.side, biases[0])
    dense_high = priors.dense_prior(at_high, state.side_high, biases[1])
    found = [mid, resize_map(high, size), dense_mid, resize_map(dense_high, size)]
    if temperatures.joint is None:
        return found, None
    share = dense / temperatures.joint.exp()
    affinity = at_mid * share[0] + resize_map(at_high * share[1], size)
    pooled = resize_map(similarity_priors(query, "pooled", state, weights), size)
    if dictionary is None:
        joint = priors.dense_prior(affinity, state.side, biases[0])
        return [*found, joint, pooled], joint
    of_words, near = _compared_with_words(query, state, dictionary, temperatures.joint.exp())
    by_words = dictionary_prior(affinity, of_words, near, state.side, biases[0], dictionary)
    return [*found, by_words.own, pooled, by_words.among_words, by_words.odds], by_words.among_words


@full_precision
def _compared_with_words(
    query: QueryFeatures, state: SupportState, dictionary: Dictionary, temperatures: Tensor
) -> tuple[Tensor, Tensor]:
    """Affinity of the words with each position of the queries, and with each token of the supports."""
    words = {"mid": dictionary.mid, "high": dictionary.high}
    maps, near = [], []
    for (name, word), temperature in zip(words.items(), temperatures, strict=True):
        maps.append(priors.token_affinity(*query.compared(name), word[None], temperature))
        near.append(word.float() / temperature @ getattr(state, f"dense_{name}").float().transpose(1, 2))
    return maps[0] + resize_map(maps[1], grid_size(maps[0])), near[0] + near[1]


def similarity_priors(query: QueryFeatures, name: str, state: SupportState, weights: Tensor) -> Tensor:
    """Min-max similarity to the foreground prototype, and its lead over the background one: ``(N, 2, h, w)``.

    ``name`` says of which map: ``low``, ``mid``, ``high`` or ``pooled``.
    """
    found = similarities(query, name, torch.cat([getattr(state, f"{side}_{name}") for side in _SIDES], 1))
    foreground, background = found.chunk(2, 1)
    pair = (priors.similarity_prior(foreground), foreground - background)
    return torch.cat([priors.mean_over_shots(maps, weights) for maps in pair], 1)


def similarities(query: QueryFeatures, name: str, prototypes: Tensor) -> Tensor:
    """Cosines of a map of :meth:`QueryFeatures.compared` with unit prototypes ``(N, M, C)``: ``(N, M, h, w)``."""
    found = priors.similarity_map(*query.compared(name), for_queries(query, prototypes))
    return by_task(query, found, len(prototypes))


def companion_prototypes(taps: Taps, pooled_map: Tensor | None, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Unit prototypes that the companion priors compare with, and the style that weighs shots, ``(N, 1, ...)``."""
    state = {"gram_low": priors.gram(taps.low)}
    pooled = taps.high if pooled_map is None else pooled_map
    for name, tap in {**taps._asdict(), "pooled": pooled}.items():
        mask = resize_mask(masks, grid_size(tap))
        whole = resize_mask(known, grid_size(tap))
        state[f"foreground_{name}"] = F.normalize(masked_average(tap, mask), dim=1)
        state[f"background_{name}"] = F.normalize(masked_average(tap, (whole - mask).clamp_min(0)), dim=1)
    return {name: tensor[:, None] for name, tensor in state.items()}


def for_queries(query: QueryFeatures, vectors: Tensor) -> Tensor:
    """Vectors ``(N, K, ...)`` of all tasks as those of the one query they ask for, ``(1, N * K, ...)``."""
    return vectors.flatten(0, 1)[None] if query.queries == 1 else vectors


def by_task(query: QueryFeatures, found: Tensor, tasks: int) -> Tensor:
    """The inverse, of what was found with them: ``(1, N * K, ...)`` as ``(N, K, ...)``."""
    return found.reshape(tasks, -1, *found.shape[2:]) if query.queries == 1 else found
