"""One cross-attention step of a query over all tokens of its supports, shot weights and directional dropout in it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iir_sdk.model.attention import CrossAttention, KeysValues
from iir_sdk.model.config import ShotFusion
from iir_sdk.model.state import SupportState
from iir_sdk.model.tokens import token_bias

IGNORE = 255


class Attended(NamedTuple):
    """Over which tokens one attention runs, and how much its outcome counts.

    Attributes:
        bias: ``(N, 1, T)`` added to the attention logits; ``-inf`` at tokens that are no part of it.
        weight: ``(N, 1, 1)``, of several attentions' outcomes; they sum to 1. None for a single one.
    """

    bias: Tensor
    weight: Tensor | None = None


class Labels(NamedTuple):
    """What directional dropout compares: ``query (N, P)`` and ``support (N, T)`` labels in {0, 1, 255}."""

    query: Tensor
    support: Tensor


def attended_tokens(state: SupportState, weights: Tensor, bias: Tensor, fusion: ShotFusion) -> list[Attended]:
    """All shots' tokens at once for ``concat``, each shot's own for ``average``.

    Args:
        state: of ``N`` tasks.
        weights: ``(N, K)`` of the shots, each row sums to 1.
        bias: ``(N, 1, T)`` that they give the tokens of all shots.
        fusion: which of the two.
    """
    if fusion == "concat" or weights.shape[1] == 1:
        return [Attended(bias)]
    one = torch.eye(weights.shape[1], device=weights.device)
    return [
        Attended(token_bias(one[k].expand_as(weights), state.mass), weights[:, k, None, None])
        for k in range(weights.shape[1])
    ]


def support_labels(state: SupportState) -> Tensor:
    """``(N, T)`` int64: 1 where a token is mostly foreground, 255 where it stands for nothing known."""
    return torch.where(state.mass.sum(1) > 0, (state.side > 0.5).long(), IGNORE)


def cross_step(
    cross: CrossAttention, tokens: Tensor, support: KeysValues, attended: list[Attended], labels: Labels | None
) -> Tensor:
    """``tokens (N, P, d)`` refined by a support's keys and values ``(N, T, d)``.

    Args:
        cross: the layers.
        tokens: of the queries.
        support: what they attend to.
        attended: from :func:`attended_tokens`.
        labels: turn directional dropout on.
    """
    outcomes = []
    for bias, weight in attended:
        if labels is not None:
            bias = _without_conflicts(cross, tokens, support.keys, bias, labels)
        outcome = cross.attend(tokens, support, bias)
        outcomes.append(outcome if weight is None else weight.to(tokens.dtype) * outcome)
    refined: Tensor = cross.feed_forward(sum(outcomes[1:], start=outcomes[0]))
    return refined


def _without_conflicts(cross: CrossAttention, tokens: Tensor, keys: Tensor, bias: Tensor, labels: Labels) -> Tensor:
    drop = cross.inconsistent(tokens, keys, *labels)
    cut = bias.expand(drop.shape).masked_fill(drop, -torch.inf)
    # A row left without any token has no softmax; it keeps what it had.
    return torch.where(cut.isneginf().all(2, keepdim=True), bias, cut)
