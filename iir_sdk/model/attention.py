"""Self attention, cross attention over all shots' tokens, and directional dropout in it (method, sections 4 and 5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.support_state import Tokens

IGNORE = 255


class KeysValues(NamedTuple):
    """What a query needs of the other side: projected ``keys`` and ``values``, each ``(B, S, d)``."""

    keys: Tensor
    values: Tensor


class Labels(NamedTuple):
    """What directional dropout compares: ``query (N, P)`` and ``support (N, T)`` labels in {0, 1, 255}."""

    query: Tensor
    support: Tensor


class Attention(nn.Module):
    """Multi-head attention of tokens whose keys and values are computed apart, so that they can be kept."""

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
        query = self.to_query(tokens)
        # (B, T or S, d) -> (B, heads, T or S, d / heads).
        asked, offered, values = (
            x.to(query.dtype).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (query, *other)
        )
        mask = None if bias is None else bias[:, None].to(query.dtype)
        attended = F.scaled_dot_product_attention(asked, offered, values, mask)
        merged: Tensor = self.merge(attended.transpose(1, 2).flatten(2))
        return merged


def inconsistent_pairs(affinity: Tensor, query_labels: Tensor, support_labels: Tensor) -> Tensor:
    """Directional dropout's pairs: each support position with its best match in the query, where labels disagree.

    Of an affinity ``(B, T, S)`` and labels ``(B, T)`` and ``(B, S)`` in {0, 1, 255}: bool ``(B, T, S)``, True at pairs
    to drop. For support position ``j`` the match is ``i*(j) = argmax_i A_ij``; the pair ``(i*, j)`` is marked when
    ``support_labels[j] != query_labels[i*]`` and neither is 255. Only this direction is checked. A query position all
    of whose pairs would be marked keeps them, since a row without keys has no softmax (method, section 5).
    """
    match = affinity.argmax(1)
    matched_labels = query_labels.gather(1, match)
    known = (matched_labels != IGNORE) & (support_labels != IGNORE)
    conflict = known & (matched_labels != support_labels)
    drop = torch.zeros_like(affinity, dtype=torch.bool)
    # Every column is written at its own match, marked or not, so no default index is ever hit.
    drop.scatter_(1, match[:, None], conflict[:, None])
    return drop & ~drop.all(2, keepdim=True)


class Residual(nn.Module):
    """Layers whose outcome is added to what they are given."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` refined, of the same shape."""
        refined: Tensor = x + self.layers(x)
        return refined


def feed_forward(width: int) -> Residual:
    """Pre-norm two-layer perceptron of tokens ``(B, T, d)``."""
    return Residual(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class SelfAttention(nn.Module):
    """Pre-norm self attention and feed-forward, each with a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = feed_forward(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, T, d)`` -> ``(B, T, d)``."""
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, self.attention.keys_values(normed))
        refined: Tensor = self.feed_forward(tokens)
        return refined


class CrossAttention(nn.Module):
    """Query tokens attend to support tokens; keys and values come from :meth:`keys_values` and may be kept."""

    def __init__(self, width: int, heads: int, *, perceptron: bool = True) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.support_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward: nn.Module = feed_forward(width) if perceptron else nn.Identity()

    def keys_values(self, support_tokens: Tensor) -> KeysValues:
        """Project ``support_tokens (B, S, d)`` once."""
        return self.attention.keys_values(self.support_norm(support_tokens))

    def forward(
        self, tokens: Tensor, support: KeysValues, bias: Tensor | None = None, labels: Labels | None = None
    ) -> Tensor:
        """``tokens (B, T, d)`` refined by ``support``, with ``bias (B, T or 1, S)``; labels turn dropout on."""
        normed = self.query_norm(tokens)
        if labels is not None:
            # Detached, not under no_grad: autocast would keep the low-precision weights it casts there, without their
            # graph, and hand them to the attention that follows.
            bias = directional_dropout(self.attention.affinity(normed, support.keys).detach(), bias, labels)
        refined: Tensor = self.feed_forward(tokens + self.attention(normed, support, bias))
        return refined


def support_labels(tokens: Tokens[Tensor]) -> Tensor:
    """``(N, T)`` int64: 1 where a token is mostly foreground, 255 where it stands for nothing known."""
    return torch.where(tokens.mass.sum(1) > 0, (tokens.side > 0.5).long(), IGNORE)


def directional_dropout(affinity: Tensor, bias: Tensor | None, labels: Labels) -> Tensor:
    """A cross attention's ``bias (N, 1, T)`` as ``(N, P, T)``, ``-inf`` at similar but inconsistent pairs."""
    bias = torch.zeros_like(affinity[:, :1]) if bias is None else bias
    cut = bias.expand(affinity.shape).masked_fill(inconsistent_pairs(affinity, *labels), -torch.inf)
    # A row left without any token has no softmax; it keeps what it had.
    return torch.where(cut.isneginf().all(2, keepdim=True), bias, cut)
