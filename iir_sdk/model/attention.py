"""Self attention, cross attention over all shots' tokens, and directional dropout in it (method, sections 4 and 5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.config import ShotFusion
from iir_sdk.model.support_state import Tokens
from iir_sdk.model.tokens import token_bias

IGNORE = 255


class KeysValues(NamedTuple):
    """What a query needs of the other side: projected ``keys`` and ``values``, each ``(B, S, d)``."""

    keys: Tensor
    values: Tensor


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


class Attention(nn.Module):
    """Multi-head attention whose keys and values are computed apart, so that they can be kept.

    Args:
        width: channels ``d`` of tokens.
        heads: number of heads; divides ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_query = nn.Linear(width, width)
        self.to_keys = nn.Linear(width, width, bias=False)
        self.to_values = nn.Linear(width, width)
        self.merge = nn.Linear(width, width)

    def keys_values(self, tokens: Tensor) -> KeysValues:
        """Project ``tokens (B, S, d)``."""
        return KeysValues(self.to_keys(tokens), self.to_values(tokens))

    def affinity(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """``q_i . k_j / sqrt(d)`` over all heads together: ``(B, T, S)``."""
        affinity: Tensor = self.to_query(tokens) @ keys.transpose(1, 2) / keys.shape[2] ** 0.5
        return affinity

    def forward(self, tokens: Tensor, other: KeysValues, bias: Tensor | None = None) -> Tensor:
        """Attend from ``tokens (B, T, d)`` to ``other``; ``bias`` adds to the logits, ``(B, T or 1, S)``."""
        query = self._split(self.to_query(tokens))
        mask = None if bias is None else bias[:, None].to(query.dtype)
        out = F.scaled_dot_product_attention(
            query, self._split(other.keys.to(query.dtype)), self._split(other.values.to(query.dtype)), mask
        )
        merged: Tensor = self.merge(out.transpose(1, 2).flatten(2))
        return merged

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


def inconsistent_pairs(affinity: Tensor, query_labels: Tensor, support_labels: Tensor) -> Tensor:
    """Directional dropout's pairs: each support position with its best match in the query, where labels disagree.

    For support position ``j`` the match is ``i*(j) = argmax_i A_ij``; the pair ``(i*, j)`` is marked when
    ``support_labels[j] != query_labels[i*]`` and neither is 255. Only this direction is checked. A query position
    all of whose pairs would be marked keeps them, since a row without keys has no softmax (method, section 5).

    Args:
        affinity: ``(B, T, S)`` attention logits.
        query_labels: ``(B, T)`` in {0, 1, 255}.
        support_labels: ``(B, S)`` in {0, 1, 255}.

    Returns:
        ``(B, T, S)`` bool, True at pairs to drop.
    """
    match = affinity.argmax(1)
    matched_labels = query_labels.gather(1, match)
    known = (matched_labels != IGNORE) & (support_labels != IGNORE)
    conflict = known & (matched_labels != support_labels)
    drop = torch.zeros_like(affinity, dtype=torch.bool)
    # Every column is written at its own match, marked or not, so no default index is ever hit.
    drop.scatter_(1, match[:, None], conflict[:, None])
    return drop & ~drop.all(2, keepdim=True)


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron with a residual."""

    def __init__(self, width: int, ratio: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, T, d)`` -> ``(B, T, d)``."""
        refined: Tensor = tokens + self.layers(tokens)
        return refined


class SelfAttention(nn.Module):
    """Pre-norm self attention and feed-forward, each with a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = FeedForward(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, T, d)`` -> ``(B, T, d)``."""
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, self.attention.keys_values(normed))
        refined: Tensor = self.feed_forward(tokens)
        return refined


class CrossAttention(nn.Module):
    """Query tokens attend to support tokens; keys and values come from :meth:`keys_values` and may be kept.

    Args:
        width: channels ``d`` of tokens.
        heads: number of heads; divides ``width``.
        feed_forward: follow the attention by a perceptron.
    """

    def __init__(self, width: int, heads: int, *, feed_forward: bool = True) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.support_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward: nn.Module = FeedForward(width) if feed_forward else nn.Identity()

    def keys_values(self, support_tokens: Tensor) -> KeysValues:
        """Project ``support_tokens (B, S, d)`` once."""
        return self.attention.keys_values(self.support_norm(support_tokens))

    def inconsistent(self, tokens: Tensor, keys: Tensor, query_labels: Tensor, support_labels: Tensor) -> Tensor:
        """Pairs that directional dropout cuts, ``(B, T, S)`` bool; carries no gradient."""
        # Detached, not under no_grad: autocast would keep the low-precision weights it casts there, without their
        # graph, and hand them to the attention that follows.
        affinity = self.attention.affinity(self.query_norm(tokens), keys).detach()
        return inconsistent_pairs(affinity, query_labels, support_labels)

    def forward(self, tokens: Tensor, support: KeysValues, bias: Tensor | None = None) -> Tensor:
        """``tokens (B, T, d)`` refined by ``support``; ``bias (B, T or 1, S)`` adds to the attention logits."""
        refined: Tensor = self.feed_forward(self.attend(tokens, support, bias))
        return refined

    def attend(self, tokens: Tensor, support: KeysValues, bias: Tensor | None = None) -> Tensor:
        """The residual attention step without the feed-forward."""
        attended: Tensor = tokens + self.attention(self.query_norm(tokens), support, bias)
        return attended


def attended_tokens(mass: Tensor, weights: Tensor, bias: Tensor, fusion: ShotFusion) -> list[Attended]:
    """All shots' tokens at once for ``concat``, those of each shot by itself for ``average``.

    Args:
        mass: ``(N, K, T)`` of the tokens.
        weights: ``(N, K)`` of the shots, each row sums to 1.
        bias: ``(N, 1, T)`` that they give the tokens of all shots.
        fusion: which of the two.
    """
    if fusion == "concat" or weights.shape[1] == 1:
        return [Attended(bias)]
    one = torch.eye(weights.shape[1], device=weights.device)
    return [
        Attended(token_bias(one[k].expand_as(weights), mass), weights[:, k, None, None])
        for k in range(weights.shape[1])
    ]


def support_labels(tokens: Tokens[Tensor]) -> Tensor:
    """``(N, T)`` int64: 1 where a token is mostly foreground, 255 where it stands for nothing known."""
    return torch.where(tokens.mass.sum(1) > 0, (tokens.side > 0.5).long(), IGNORE)


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
            bias = directional_dropout(cross, tokens, support.keys, bias, labels)
        outcome = cross.attend(tokens, support, bias)
        outcomes.append(outcome if weight is None else weight.to(tokens.dtype) * outcome)
    refined: Tensor = cross.feed_forward(sum(outcomes[1:], start=outcomes[0]))
    return refined


def directional_dropout(cross: CrossAttention, tokens: Tensor, keys: Tensor, bias: Tensor, labels: Labels) -> Tensor:
    """``bias (N, 1, T)`` of query tokens ``(N, P, d)`` as ``(N, P, T)``, ``-inf`` at similar but inconsistent pairs."""
    drop = cross.inconsistent(tokens, keys, *labels)
    cut = bias.expand(drop.shape).masked_fill(drop, -torch.inf)
    # A row left without any token has no softmax; it keeps what it had.
    return torch.where(cut.isneginf().all(2, keepdim=True), bias, cut)
