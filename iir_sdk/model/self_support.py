"""The query as a support of its own: prototypes of what a prior takes for the object, and for the background.

One picture's object is more like itself than like another picture's (self-support matching, Fan et al., ECCV 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.model import prior as priors
from iir_sdk.model.cam import resize_map
from iir_sdk.model.precision import full_precision
from iir_sdk.model.prototypes import area_average, grid_size
from iir_sdk.model.query import QueryFeatures
from iir_sdk.model.query_priors import by_task, for_queries, similarities
from iir_sdk.model.tokens import map_to_tokens

_SHARPNESS = 4


def self_support_priors(query: QueryFeatures, prior: Tensor) -> tuple[Tensor, Tensor]:
    """How much more each position resembles the query's own foreground than its own background.

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
    size, fine = grid_size(query.taps.mid), grid_size(query.taps.low)
    relative = prior / prior.amax((2, 3), keepdim=True).clamp_min(1e-6)
    shares = torch.cat([relative, 1 - relative], 1) ** _SHARPNESS
    mid = mean_units(query, "mid", shares)
    high = mean_units(query, "high", area_average(shares, grid_size(query.taps.high)))
    low = mean_units(query, "low", resize_map(shares, fine))
    mid, high = F.normalize(torch.cat([mid, high], 2), dim=2).split([mid.shape[2], high.shape[2]], 2)
    found = similarities(query, "mid", mid) + resize_map(similarities(query, "high", high), size)
    of_low = similarities(query, "low", F.normalize(low, dim=2))
    lead, lead_of_low = (maps[:, :1] - maps[:, 1:] for maps in (found, of_low))
    tokens = torch.cat([priors.similarity_prior(found[:, :1]), lead], 1)
    return tokens, torch.cat([resize_map(lead, fine), lead_of_low], 1)


@full_precision
def mean_units(query: QueryFeatures, name: str, shares: Tensor) -> Tensor:
    """Means ``(N, M, C)`` of a map's unit vectors with the weights ``shares (N, M, h, w)``."""
    features, lengths = query.compared(name)
    rows = for_queries(query, (shares / lengths).flatten(2))
    sums = by_task(query, rows @ map_to_tokens(features.float()), len(shares))
    return sums / shares.sum((2, 3)).clamp_min(1e-6)[..., None]
