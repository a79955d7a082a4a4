"""The trained part: fusion of features, prototypes and priors, refinement blocks, mask head (method, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.attention import CrossAttention, KeysValues, SelfAttention
from iir_sdk.model.backbone import Taps
from iir_sdk.model.cam import resize_map
from iir_sdk.model.config import ModelConfig, ShotFusion


def _to_tokens(maps: Tensor) -> Tensor:
    # Contiguous: norms are ten times slower on a transposed view.
    return maps.flatten(2).transpose(1, 2).contiguous()


def _to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


class FeatureProjection(nn.Module):
    """``low`` (averaged), ``mid`` and ``high`` (enlarged) at ``mid``'s grid, each normalised, 1x1 conv, ReLU, dropout.

    Args:
        channels: of the three taps.
        width: output channels ``d``.
        dropout: spatial dropout rate.
    """

    def __init__(self, channels: tuple[int, int, int], width: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for c in channels)
        self.mix = nn.Conv2d(sum(channels), width, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, taps: Taps) -> Tensor:
        """Taps -> ``(N, d, h, w)`` at ``mid``'s grid."""
        # Group norm is slow on the channels-last maps that a backbone gives.
        low, mid, high = (norm(tap.contiguous()) for norm, tap in zip(self.norms, taps, strict=True))
        size = (mid.shape[2], mid.shape[3])
        maps = torch.cat([F.adaptive_avg_pool2d(low, size), mid, resize_map(high, size)], 1)
        projected: Tensor = self.dropout(self.mix(maps).relu())
        return projected


class ResidualConv(nn.Module):
    """Two 3x3 convolutions with a residual, group-normalised first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, d, h, w)`` -> the same shape."""
        refined: Tensor = x + self.layers(x)
        return refined


class RefinementBlock(nn.Module):
    """Self attention on both sides (shared weights), cross attention query <- support, 3x3 convs on the query."""

    def __init__(self, width: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.self_attention = SelfAttention(width, heads)
        self.cross_attention = CrossAttention(width, heads) if cross else None
        self.support_aux = nn.Conv2d(width, 2, 1) if cross else None
        self.conv = ResidualConv(width)
        self.query_aux = nn.Conv2d(width, 2, 1)

    def support_step(self, tokens: Tensor) -> tuple[Tensor, KeysValues, Tensor]:
        """Refine support ``tokens (N, S, d)`` without any query, in a block with cross attention.

        Returns:
            The tokens, the keys and values that a query needs of them, and 2-way logits ``(N, 2, S, 1)``.
        """
        assert self.cross_attention is not None and self.support_aux is not None
        tokens = self.self_attention(tokens)
        auxiliary = self.support_aux(tokens.transpose(1, 2)[..., None])
        return tokens, self.cross_attention.keys_values(tokens), auxiliary

    def query_step(
        self,
        x: Tensor,
        support: KeysValues | None,
        weights: Tensor,
        fusion: ShotFusion,
        labels: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Refine the query map.

        Args:
            x: ``(B, d, h, w)``.
            support: keys and values ``(B, K, S, d)``, None in a block without cross attention.
            weights: ``(B, K)`` shot weights, each row sums to 1.
            fusion: attend over all shots at once, or to each and average.
            labels: query ``(B, h*w)`` and support ``(B, K, S)`` labels in {0, 1, 255} turn directional dropout on.
        """
        size = (x.shape[2], x.shape[3])
        tokens = self.self_attention(_to_tokens(x))
        if self.cross_attention is not None:
            assert support is not None
            tokens = _cross(self.cross_attention, tokens, support, weights, fusion, labels)
        refined: Tensor = self.conv(_to_map(tokens, size))
        return refined


def _cross(
    cross: CrossAttention,
    tokens: Tensor,
    support: KeysValues,
    weights: Tensor,
    fusion: ShotFusion,
    labels: tuple[Tensor, Tensor] | None,
) -> Tensor:
    if fusion == "concat" or weights.shape[1] == 1:
        flat = KeysValues(support.keys.flatten(1, 2), support.values.flatten(1, 2))
        bias = _shot_bias(weights, support.keys.shape[2])
        support_labels = None if labels is None else (labels[0], labels[1].flatten(1))
        return cross(tokens, flat, _with_dropout(cross, tokens, flat.keys, bias, support_labels))  # type: ignore[no-any-return]
    attended = torch.zeros_like(tokens)
    for k in range(weights.shape[1]):
        shot = KeysValues(support.keys[:, k], support.values[:, k])
        shot_labels = None if labels is None else (labels[0], labels[1][:, k])
        bias = _with_dropout(cross, tokens, shot.keys, None, shot_labels)
        attended = attended + weights[:, k, None, None].to(tokens.dtype) * cross.attend(tokens, shot, bias)
    return cross.feed_forward(attended)  # type: ignore[no-any-return]


def _shot_bias(weights: Tensor, positions: int) -> Tensor | None:
    """Log of the shot weights at every token, so that a shot counts in the softmax by its weight; None for one shot."""
    if weights.shape[1] == 1:
        return None
    return weights.clamp_min(1e-6).log().repeat_interleave(positions, 1)[:, None]


def _with_dropout(
    cross: CrossAttention, tokens: Tensor, keys: Tensor, bias: Tensor | None, labels: tuple[Tensor, Tensor] | None
) -> Tensor | None:
    if labels is None:
        return bias
    drop = cross.inconsistent(tokens, keys, *labels)
    base = torch.zeros(drop.shape, device=drop.device) if bias is None else bias.expand(drop.shape)
    return base.masked_fill(drop, -torch.inf)


class MaskHead(nn.Module):
    """Refined map, ``low`` features and priors at stride 8 -> 2-way logits.

    Args:
        width: channels of the refined map.
        low: channels of ``low``.
        priors: number of prior channels.
        hidden: channels inside.
    """

    def __init__(self, width: int, low: int, priors: int, hidden: int) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.GroupNorm(1, low), nn.Conv2d(low, hidden, 1), nn.ReLU())
        self.layers = nn.Sequential(
            nn.Conv2d(width + hidden + priors, hidden, 3, padding=1),
            nn.GroupNorm(8, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.GroupNorm(8, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, 2, 1),
        )

    def forward(self, x: Tensor, low: Tensor, priors: Tensor) -> Tensor:
        """``x (B, d, h, w)``, ``low (B, C, 2h, 2w)``, ``priors (B, P, 2h, 2w)`` -> ``(B, 2, 2h, 2w)``."""
        enlarged = resize_map(x, (low.shape[2], low.shape[3]))
        logits: Tensor = self.layers(torch.cat([enlarged, self.low(low.contiguous()), priors.to(x.dtype)], 1))
        return logits


class Decoder(nn.Module):
    """All trained modules of IIR, wired by :class:`iir_sdk.model.iir.IIR`.

    Args:
        config: the architecture.
        channels: of the backbone's three taps.
        priors: prior channels of the query at ``mid``'s grid.
        head_priors: prior channels at ``low``'s grid.
    """

    def __init__(self, config: ModelConfig, channels: tuple[int, int, int], priors: int, head_priors: int) -> None:
        super().__init__()
        width = config.width
        self.project_query = FeatureProjection(channels, width, config.dropout)
        self.support_projection = (
            None if config.shared_projection else FeatureProjection(channels, width, config.dropout)
        )
        self.fuse_query = nn.Conv2d(3 * width + priors, width, 1)
        # The support's priors are IIR's own and, beyond the paper, its mask: tokens that know which side they are on.
        self.fuse_support = nn.Conv2d(3 * width + 2, width, 1)
        self.query_start = nn.Conv2d(width, 2, 1)
        self.support_start = nn.Conv2d(width, 2, 1)
        self.blocks = nn.ModuleList(
            RefinementBlock(width, config.heads, cross=i < config.cross_blocks) for i in range(config.blocks)
        )
        self.head = MaskHead(width, channels[0], head_priors, config.head_width)
        # Of the dense companion priors.
        self.temperature_log = nn.Parameter(torch.tensor(0.05).log().repeat(2)) if config.companion_priors else None
        self.shot_scale_log = nn.Parameter(torch.tensor(10.0).log())

    def project_support(self, taps: Taps) -> Tensor:
        """Support features by their own projection, or by the query's where the two share one."""
        projection = self.project_query if self.support_projection is None else self.support_projection
        projected: Tensor = projection(taps)
        return projected
