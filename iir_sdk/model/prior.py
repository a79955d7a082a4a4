"""IIR's prior map, of a query and of a support (method, section 2, step 5), and what each shot counts (section 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.model.cam import resize_map
from iir_sdk.model.encodings import QueryFeatures, SupportState, by_task, for_queries
from iir_sdk.model.prototypes import grid_size
from iir_sdk.model.support_state import DualPrototypes
from iir_sdk.model.tokens import Vectors, full_precision


def query_prior(query: QueryFeatures, state: SupportState, activated: Tensor, weights: Tensor) -> Tensor:
    """IIR's prior of a query, mean over the shots: ``(N, 1, h, w)`` float32 in [0, 1].

    Of ``N`` queries, or one that all tasks ask for; ``activated`` is bool ``(N, K, h, w)`` at the grid of the outcome.
    """
    cosines = similarities(query.high, torch.cat([state.core_high, state.local_high], 1))
    core, local = resize_map(cosines, grid_size(activated)).chunk(2, 1)
    return mean_over_shots(region_prior(core, local, activated), weights)


def support_prior(high: Tensor, prototypes: DualPrototypes[Tensor], activated: Tensor) -> Tensor:
    """The same of supports' ``high`` by their own prototypes ``(N, C)`` in it: ``(N, 1, h, w)`` float32 in [0, 1]."""
    # As the query's: compared at the grid of high, and the similarities are enlarged, not the features.
    both = F.normalize(torch.stack([prototypes.core, prototypes.local], 1).float(), dim=2)
    cosines = similarities(Vectors.measured(high), both)
    core, local = resize_map(cosines, grid_size(activated)).chunk(2, 1)
    return region_prior(core, local, activated.bool())


@full_precision
def similarities(query: Vectors, prototypes: Tensor) -> Tensor:
    """Cosines, ``(N, M, h, w)`` float32, of a map, of ``N`` queries or of one, with unit prototypes ``(N, M, C)``."""
    asked = for_queries(prototypes, len(query.map)).float()
    products = asked @ query.map.float().flatten(2)
    cosines = products.reshape(*products.shape[:2], *query.map.shape[2:]) / query.lengths
    return by_task(cosines, len(prototypes))


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
    """IIR's prior, ``(N, K, h, w)`` float32 in [0, 1]: the cosine with core where activated and with local elsewhere.

    Min-max in each of the two regions.
    """
    regions = torch.cat([activated, ~activated], 1)
    core, local = min_max(torch.cat([core_similarity, local_similarity], 1), regions).chunk(2, 1)
    return core + local


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

    The distance is the Frobenius norm of the difference of ``(N, C, C)`` and ``(N, K, C, C)``, over ``C``, times a
    learned scale >= 0; gives ``(N, K)`` float32, each row sums to 1.
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
