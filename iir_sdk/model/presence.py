"""Whether a query shows the object at all: does what was found look like the support's object?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.precision import full_precision
from iir_sdk.model.prototypes import area_average, grid_size
from iir_sdk.model.query import QueryFeatures
from iir_sdk.model.self_support import mean_units
from iir_sdk.model.state import SupportState

EVIDENCE = ("high", "pooled")
"""The maps by which the two are compared."""


@full_precision
def presence_logit(evidence: Tensor, head: nn.Linear) -> Tensor:
    """Logit ``(N,)`` float32 of the query showing the object, from ``evidence (N, 2)`` by a fitted head."""
    return F.linear(evidence.float(), head.weight.float(), head.bias.float())[:, 0]


def presence_evidence(query: QueryFeatures, state: SupportState, weights: Tensor, logits: Tensor) -> Tensor:
    """Cosine of the mean of what was found with the support's object, by each map of :data:`EVIDENCE`.

    Every position counts by its foreground probability, so that something is compared where no mask is found, too.

    Args:
        query: of ``N`` queries, or of one that all tasks ask for.
        state: of ``N`` tasks.
        weights: ``(N, K)`` of the shots.
        logits: ``(N, 2, h, w)``, background and foreground.

    Returns:
        ``(N, 2)`` float32 in [-1, 1].
    """
    found = (logits[:, 1:] - logits[:, :1]).float().sigmoid()
    cosines = []
    for name in EVIDENCE:
        mean = mean_units(query, name, area_average(found, grid_size(query.compared(name)[0])))
        each = (F.normalize(mean, dim=2) * getattr(state, f"foreground_{name}").float()).sum(2)
        cosines.append((each * weights).sum(1))
    return torch.stack(cosines, 1)
