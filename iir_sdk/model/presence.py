"""How far a prediction can be trusted: whether the query shows the object at all, and how much of its mask is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.precision import full_precision
from iir_sdk.model.prototypes import area_average, grid_size
from iir_sdk.model.query import QueryFeatures
from iir_sdk.model.self_support import mean_units
from iir_sdk.model.state import SupportState

_MAPS = ("high", "pooled")

EVIDENCE = len(_MAPS) + 1
"""How many numbers speak for a prediction: a cosine by each of the maps, and the lead."""

SCORES = ("presence", "confidence")
"""What they are made into: does the query show the object, and if so, what share of the mask is of it."""


@full_precision
def score_logits(evidence: Tensor, head: nn.Linear) -> Tensor:
    """Logits ``(N, 2)`` float32, presence and confidence, from ``evidence (N, 3)`` by a fitted head."""
    return F.linear(evidence.float(), head.weight.float(), head.bias.float())


def prediction_evidence(query: QueryFeatures, state: SupportState, weights: Tensor, logits: Tensor) -> Tensor:
    """Does what was found look like the support's object, and how far is it from what was not found?

    Args:
        query: of ``N`` queries, or of one that all tasks ask for.
        state: of ``N`` tasks.
        weights: ``(N, K)`` of the shots.
        logits: ``(N, 2, h, w)``, background and foreground.

    Returns:
        ``(N, 3)`` float32: by ``high`` and by the map that the classifier pools, the cosine in [-1, 1] of the mean of
        what was found with the support's object, every position counting by its foreground probability, so that
        something is compared where no mask is found, too; and the mean lead of the foreground inside the mask, >= 0.
    """
    lead = (logits[:, 1:] - logits[:, :1]).float()
    found, inside = lead.sigmoid(), lead > 0
    evidence = []
    for name in _MAPS:
        mean = mean_units(query, name, area_average(found, grid_size(query.compared(name)[0])))
        each = (F.normalize(mean, dim=2) * getattr(state, f"foreground_{name}").float()).sum(2)
        evidence.append((each * weights).sum(1))
    evidence.append((lead * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1))
    return torch.stack(evidence, 1)
