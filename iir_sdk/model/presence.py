"""How far a prediction can be trusted: whether the query shows the object at all, and how much of its mask is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.companions import mean_units
from iir_sdk.model.encodings import QueryFeatures, SupportState
from iir_sdk.model.prior import similarities
from iir_sdk.model.prototypes import area_average, grid_size
from iir_sdk.model.tokens import full_precision

EVIDENCE = (
    *("cosine of high", "cosine of pooled", "most alike", "classes' cosine", "classes' overlap", "lead"),
    *("cosine of mid", "cosine of low", "cosine with background", "size"),
)
"""What speaks for a prediction; see :func:`prediction_evidence`. A head may read the first ones alone."""

OF_CONFIDENCE_ALONE = ("lead", "cosine with background", "size")
"""How far a mask stands out and how large it is says nothing of whether the object is there."""

SCORES = ("presence", "confidence")
"""What they are made into: does the query show the object, and if so, what share of the mask is of it."""

_LENGTH = 4
"""Of the vectors whose class probabilities are compared; sharper ones hardly overlap: at 10 they tell less."""

_LEAST_SHARE = 1e-4


@full_precision
def score_logits(evidence: Tensor, head: nn.Linear) -> Tensor:
    """Logits ``(N, 2)`` float32, presence and confidence, from what a fitted head reads of ``evidence (N, 10)``."""
    return F.linear(evidence[:, : head.in_features].float(), head.weight.float(), head.bias.float())


def prediction_evidence(
    query: QueryFeatures, state: SupportState, weights: Tensor, logits: Tensor, class_weight: Tensor
) -> Tensor:
    """Does the predicted object look like the support's, and how far is it from the rest of the query?

    Every position counts by its foreground probability for the mean of the predicted object, so that something is
    compared where the mask is empty, too.

    Args:
        query: of ``N`` queries, or of one that all tasks ask for.
        state: of ``N`` tasks.
        weights: ``(N, K)`` of the shots.
        logits: ``(N, 2, h, w)``, background and foreground.
        class_weight: ``(1000, C)``, rows of the classifier.

    Returns:
        ``(N, 10)`` float32: the cosine of that mean with the support's object by ``high`` and by the map that the
        classifier pools; the largest cosine of any position by ``high``; how alike the classifier finds the two, by
        :func:`class_agreement`; the mean lead of the foreground inside the mask, >= 0; the cosine by ``mid`` and by
        ``low``; that with the support's background by the map that the classifier pools; and the logarithm of the
        picture's share that is foreground.
    """
    lead = (logits[:, 1:] - logits[:, :1]).float()
    foreground, inside = lead.sigmoid(), lead > 0
    assert query.pooled is not None
    low, mid, high, pooled = (
        F.normalize(mean_units(maps, area_average(foreground, grid_size(maps.map))), dim=2)
        for maps in (query.low, query.mid, query.high, query.pooled)
    )
    alike = similarities(query.high, state.high.foreground).float().amax((2, 3))
    by_shot = [
        (high * state.high.foreground.float()).sum(2),
        (pooled * state.pooled.foreground.float()).sum(2),
        alike,
        *class_agreement(pooled, state.pooled.foreground, class_weight),
    ]
    evidence = [(each * weights).sum(1) for each in by_shot]
    evidence.append((lead * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1))
    further = [
        (mid * state.mid.foreground.float()).sum(2),
        (low * state.low.foreground.float()).sum(2),
        (pooled * state.pooled.background.float()).sum(2),
    ]
    evidence += [(each * weights).sum(1) for each in further]
    evidence.append((foreground.mean((1, 2, 3)) + _LEAST_SHARE).log())
    return torch.stack(evidence, 1)


@full_precision
def class_agreement(predicted: Tensor, objects: Tensor, class_weight: Tensor) -> tuple[Tensor, Tensor]:
    """How alike unit vectors ``(N, 1, C)`` and ``(N, K, C)`` are in the classifier's vocabulary, ``(1000, C)`` rows.

    Cosine of the class logits without their mean, and overlap of the class probabilities (Bhattacharyya, 1943) of
    vectors of length 4, each ``(N, K)`` float32.
    """
    scores = torch.cat([predicted.float(), objects.float()], 1) @ class_weight.float().T
    centred = F.normalize(scores - scores.mean(2, keepdim=True), dim=2)
    roots = (_LENGTH * scores).softmax(2).sqrt()
    return (centred[:, :1] * centred[:, 1:]).sum(2), (roots[:, :1] * roots[:, 1:]).sum(2)
