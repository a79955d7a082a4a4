"""Prior maps: where in the query is the support's object, by similarity alone (method, section 2, step 5)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.model.precision import full_precision
from iir_sdk.model.prototypes import grid_size
from iir_sdk.model.tokens import map_to_tokens, tokens_to_map


@full_precision
def cosine_map(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine similarity of each position with each of ``K`` prototypes.

    Args:
        features: ``(N, C, h, w)``.
        prototypes: ``(N, K, C)``.

    Returns:
        ``(N, K, h, w)`` float32 in [-1, 1].
    """
    return similarity_map(features, vector_lengths(features), F.normalize(prototypes.float(), dim=2))


@full_precision
def similarity_map(features: Tensor, lengths: Tensor, prototypes: Tensor) -> Tensor:
    """As :func:`cosine_map`, where ``lengths`` are known, of :func:`vector_lengths`, and prototypes have length 1."""
    found = prototypes.float() @ features.float().flatten(2)
    return found.reshape(*found.shape[:2], *features.shape[2:]) / lengths


@full_precision
def vector_lengths(maps: Tensor) -> Tensor:
    """Length of each position's vector of ``(N, C, h, w)``, ``(N, 1, h, w)`` float32, at least 1e-12."""
    # A sum of squares: torch's own norm along the channels is ten times slower.
    return maps.float().square().sum(1, keepdim=True).clamp_min(1e-24).sqrt()


def min_max(values: Tensor, region: Tensor) -> Tensor:
    """Min-max of each ``values (N, K, h, w)`` to [0, 1] within ``region`` (bool, same shape); zero outside of it.

    A region without spread (one position, or none) gives zero, never NaN.
    """
    outside = ~region
    low = values.masked_fill(outside, torch.inf).amin((2, 3), keepdim=True)
    high = values.masked_fill(outside, -torch.inf).amax((2, 3), keepdim=True)
    spread = high - low
    flat = ~(spread > 1e-6)
    scaled = (values - low.masked_fill(flat, 0)) / spread.masked_fill(flat, 1)
    return scaled.masked_fill(outside | flat, 0)


def region_prior(core_similarity: Tensor, local_similarity: Tensor, activated: Tensor) -> Tensor:
    """IIR's prior: similarity to core where activated and to local elsewhere, min-max in each of the two regions.

    Args:
        core_similarity: ``(N, K, h, w)`` cosine with the core prototype.
        local_similarity: ``(N, K, h, w)`` cosine with the local prototype.
        activated: ``(N, K, h, w)`` bool, the class activation above its threshold.

    Returns:
        ``(N, K, h, w)`` float32 in [0, 1].
    """
    regions = torch.cat([activated, ~activated], 1)
    core, local = min_max(torch.cat([core_similarity, local_similarity], 1), regions).chunk(2, 1)
    return core + local


def similarity_prior(similarity: Tensor) -> Tensor:
    """Min-max over each whole map: ``(N, K, h, w)`` to [0, 1]."""
    low, high = similarity.amin((2, 3), keepdim=True), similarity.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 1e-6, (similarity - low) / spread.clamp_min(1e-6), 0)


@full_precision
def token_affinity(features: Tensor, lengths: Tensor, tokens: Tensor, temperature: Tensor) -> Tensor:
    """Cosine over temperature of each query position with each support token.

    Args:
        features: ``(N, C, h, w)`` of the queries, or of one query for all.
        lengths: ``(N, 1, h, w)``, of :func:`vector_lengths`.
        tokens: ``(N, T, C)`` unit vectors.
        temperature: scalar > 0.

    Returns:
        ``(N, T, h, w)`` float32, channels last in memory: a softmax over the tokens reads them in a row.
    """
    affinity = map_to_tokens(features.float()) @ (tokens.float() / temperature).transpose(1, 2)
    return tokens_to_map(affinity / map_to_tokens(lengths), grid_size(features))


@full_precision
def dense_prior(affinity: Tensor, side: Tensor, bias: Tensor) -> Tensor:
    """Share of foreground among the support tokens that each query position resembles.

    A softmax over the tokens of their affinity, summed over their sides (the dense attention of DCAMA, Shi et al.,
    ECCV 2022, without learned projections).

    Args:
        affinity: ``(N, T, h, w)``, of :func:`token_affinity` or the sum of several.
        side: ``(N, T)`` foreground share of each token, in [0, 1].
        bias: ``(N, 1, T)``, from :func:`iir_sdk.model.tokens.token_bias`.

    Returns:
        ``(N, 1, h, w)`` float32 in [0, 1].
    """
    attention = (map_to_tokens(affinity) + bias).softmax(2)
    return tokens_to_map(attention @ side.float()[:, :, None], grid_size(affinity))


@full_precision
def gram(features: Tensor) -> Tensor:
    """Gram matrix of ``(N, C, h, w)``, ``(N, C, C)`` float32: the style that weighs shots.

    Scaled to a mean of 1 on its diagonal, so that it may be kept in float16 whatever ``C`` is.
    """
    flat = features.float().flatten(2)
    product = flat @ flat.transpose(1, 2)
    return product / product.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-6)


@full_precision
def shot_weights(query_gram: Tensor, support_grams: Tensor, scale: Tensor) -> Tensor:
    """Softmax over shots of the negative Gram distance, so that any K works (method, section 3).

    The distance is the Frobenius norm of the difference over ``C``.

    Args:
        query_gram: ``(N, C, C)``.
        support_grams: ``(N, K, C, C)``.
        scale: learned scalar >= 0.

    Returns:
        ``(N, K)`` float32, each row sums to 1.
    """
    distance = (query_gram[:, None] - support_grams.float()).flatten(2).norm(dim=2) / query_gram.shape[1]
    weights: Tensor = (-scale * distance).softmax(1)
    return weights


@full_precision
def mean_over_shots(maps: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of ``maps (N, K, h, w)`` with ``weights (N, K)``: ``(N, 1, h, w)``."""
    if maps.shape[1] == 1:
        return maps.float()
    mean = weights.float()[:, None] @ maps.float().flatten(2)
    return mean.reshape(mean.shape[0], 1, *maps.shape[2:])
