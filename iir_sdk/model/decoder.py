"""The trained part: fusion of features, prototypes and priors, refinement blocks, mask head (method, section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.attention import CrossAttention, KeysValues, Labels, Residual, SelfAttention
from iir_sdk.model.backbone import Taps
from iir_sdk.model.cam import resize_map
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.light import LightBlock, LightHead
from iir_sdk.model.presence import SCORES
from iir_sdk.model.prototypes import area_average, core_or_local, grid_size
from iir_sdk.model.support_state import DualPrototypes, Tokens
from iir_sdk.model.tokens import TokenLayout, laid_out_like, map_to_tokens, tokens_to_map


class FeatureProjection(nn.Module):
    """``low`` (averaged), ``mid``, ``high`` (enlarged) at ``mid``'s grid, each normalised, 1x1 conv, ReLU, dropout."""

    def __init__(self, channels: tuple[int, int, int], width: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for c in channels)
        self.mix = nn.Conv2d(sum(channels), width, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, taps: Taps) -> Tensor:
        """Taps -> ``(N, d, h, w)`` at ``mid``'s grid."""
        low, mid, high = (norm(tap) for norm, tap in zip(self.norms, taps, strict=True))
        size = (mid.shape[2], mid.shape[3])
        of_low, of_mid, of_high = self.mix.weight.split([low.shape[1], mid.shape[1], high.shape[1]], 1)
        # The convolution is linear in its three groups of channels, and enlarging after it moves fewer of them.
        mixed = F.conv2d(mid, of_mid, self.mix.bias) + F.conv2d(area_average(low, size), of_low)
        projected: Tensor = self.dropout((mixed + resize_map(F.conv2d(high, of_high), size)).relu_())
        return projected


class RefinementBlock(nn.Module):
    """Self attention on both sides (shared weights), cross attention query <- support, 3x3 convs on the query."""

    def __init__(self, width: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.self_attention = SelfAttention(width, heads)
        self.cross_attention = CrossAttention(width, heads) if cross else None
        self.support_aux = nn.Conv2d(width, 2, 1) if cross else None
        self.conv = Residual(
            nn.GroupNorm(1, width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.query_aux = nn.Conv2d(width, 2, 1)

    def self_step(self, x: Tensor) -> Tensor:
        """Refine the support map ``(N, d, h, w)``; its keys and values are taken from the outcome."""
        return tokens_to_map(self.self_attention(map_to_tokens(x)), (x.shape[2], x.shape[3]))

    def cross_step(self, x: Tensor, support: KeysValues | None, bias: Tensor, labels: Labels | None) -> Tensor:
        """Refine the query map ``(N, d, h, w)`` by itself and, with cross attention, by a support's keys and values."""
        size = (x.shape[2], x.shape[3])
        tokens = self.self_attention(map_to_tokens(x))
        if self.cross_attention is not None and support is not None:
            tokens = self.cross_attention(tokens, support, bias, labels)
        refined: Tensor = self.conv(tokens_to_map(tokens, size))
        return refined


class MaskHead(nn.Module):
    """Refined map, ``low`` features and priors at stride 8 -> 2-way logits."""

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

    def detail(self, low: Tensor) -> Tensor:
        """What ``low (N, C, 2h, 2w)`` adds, ``(N, hidden, 2h, 2w)``, whatever the label."""
        added: Tensor = self.low(low)
        return added

    def forward(self, x: Tensor, detail: Tensor, priors: Tensor) -> Tensor:
        """``x (N, d, h, w)``, ``detail`` of N or of one query, ``priors (N, P, 2h, 2w)`` -> ``(N, 2, 2h, 2w)``."""
        enlarged = resize_map(x, (detail.shape[2], detail.shape[3]))
        rest = (detail.expand(x.shape[0], -1, -1, -1), priors.to(x.dtype))
        logits: Tensor = self.layers(torch.cat([enlarged, *(laid_out_like(enlarged, maps) for maps in rest)], 1))
        return logits


class SupportBranch(NamedTuple):
    """What the support's side of the decoder gives."""

    keys: Tensor  # ``(N, L, T, d)`` of each cross attention; so are values
    values: Tensor
    auxiliary: tuple[Tensor, ...]  # logits ``(N, 2, h, w)`` after fusion and each block with cross attention


class Decoder(nn.Module):
    """All trained modules of IIR, wired by :class:`iir_sdk.model.iir.IIR`.

    ``channels`` are those of the backbone's three taps, ``priors`` a query's at ``mid``'s grid, ``head_priors`` at
    ``low``'s.
    """

    def __init__(self, config: ModelConfig, channels: tuple[int, int, int], priors: int, head_priors: int) -> None:
        super().__init__()
        width = config.width
        self.project_query = FeatureProjection(channels, width, config.dropout)
        self.support_projection = None if config.light else FeatureProjection(channels, width, config.dropout)
        self.fuse_query = nn.Conv2d(3 * width + priors, width, 1)
        # The support's priors are IIR's own and, beyond the paper, its mask: tokens that know which side they are on.
        self.fuse_support = nn.Conv2d(3 * width + 2, width, 1)
        self.query_start = nn.Conv2d(width, 2, 1)
        self.support_start = nn.Conv2d(width, 2, 1)
        first = config.blocks - config.cross_blocks if config.light else 0
        self.trunk = nn.ModuleList(LightBlock(width, config.heads, cross=False) for _ in range(first))
        block, head = (LightBlock, LightHead) if config.light else (RefinementBlock, MaskHead)
        self.blocks = nn.ModuleList(
            block(width, config.heads, cross=i < config.cross_blocks) for i in range(config.blocks - first)
        )
        self.head = head(width, channels[0], head_priors, config.head_width)
        # Of the dense companion priors.
        self.temperature_log = nn.Parameter(torch.tensor(0.05).log().repeat(2)) if config.light else None
        # Of the joint one, of its two summands.
        self.joint_temperature_log = nn.Parameter(torch.tensor(0.1).log().repeat(2)) if config.joint_priors else None
        # Fitted after training, to evidence that its losses never see.
        self.scores = nn.Linear(config.evidence, len(SCORES)) if config.presence else None
        self.shot_scale_log = nn.Parameter(torch.tensor(10.0).log())

    def features(self, taps: Taps, *, of_support: bool = False) -> Tensor:
        """Decoder features ``(N, d, h, w)`` of queries or supports, before either is compared with the other."""
        separate = self.support_projection if of_support else None
        features: Tensor = (self.project_query if separate is None else separate)(taps)
        for block in self.trunk:
            features = cast(LightBlock, block).self_step(features)
        return features

    def support_branch(self, fused: Tensor, layout: TokenLayout) -> SupportBranch:
        """Refine supports ``(N, d, h, w)`` by themselves, and read what queries attend to."""
        # Blocks without cross attention take nothing from the support, so its branch ends with the last that does.
        x, keys, values, auxiliary = fused, [], [], [self.support_start(fused)]
        for block in cast(Iterable[Any], self.blocks):
            if block.cross_attention is None:
                break
            x = block.self_step(x)
            cross = block.cross_attention.keys_values(layout.pool(x))
            keys.append(cross.keys)
            values.append(cross.values)
            auxiliary.append(block.support_aux(x))
        if not keys:
            none = fused.new_zeros(len(fused), 0, layout.side.shape[1], fused.shape[1])
            return SupportBranch(none, none, tuple(auxiliary))
        return SupportBranch(torch.stack(keys, 1), torch.stack(values, 1), tuple(auxiliary))

    def query_branch(
        self, x: Tensor, tokens: Tokens[Tensor], bias: Tensor, labels: Labels | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Refine queries ``(N, d, h, w)`` by themselves and support tokens; with labels, auxiliary logits as well."""
        auxiliary = [self.query_start(x)] if labels else []
        for i, block in enumerate(cast(Iterable[Any], self.blocks)):
            crossing = block.cross_attention is not None
            support = KeysValues(tokens.keys[:, i], tokens.values[:, i]) if crossing else None
            x = block.cross_step(x, support, bias, labels)
            if labels:
                auxiliary.append(block.query_aux(x))
        return x, tuple(auxiliary)

    def fused_support(self, features: Tensor, dual: DualPrototypes[Tensor], activated: Tensor, maps: Tensor) -> Tensor:
        """The 1x1 fusion of features, whole prototype, core or local prototype, and ``maps``: prior and mask."""
        whole = dual.whole[:, :, None, None].expand(-1, -1, *grid_size(features))
        one_shot = activated.new_ones(len(activated), 1)
        chosen = core_or_local(activated, dual.core[:, None], dual.local[:, None], one_shot)
        fused: Tensor = self.fuse_support(
            torch.cat([part.to(features.dtype) for part in (features, whole, chosen, maps)], 1)
        )
        return fused

    def fused_query(
        self, features: Tensor, prototypes: DualPrototypes[Tensor], weights: Tensor, activated: Tensor, maps: Tensor
    ) -> Tensor:
        """The same of queries as the sum of what each group of inputs adds, since the convolution is linear in them.

        Of what features add ``(N, d, h, w)``, what prototypes add ``(N, K, d)`` (:meth:`fused_prototypes`), weights
        ``(N, K)`` of the shots, bool ``(N, K, h, w)`` where activated, and the priors ``(N, P, h, w)``.
        """
        whole = (weights[:, None] @ prototypes.whole.float())[:, 0, :, None, None]
        x = features + whole + core_or_local(activated, prototypes.core, prototypes.local, weights)
        added = self.fuse_query_part("priors", laid_out_like(features, maps.to(features.dtype)))
        return x.to(features.dtype) + added

    def fused_prototypes(self, dual: DualPrototypes[Tensor]) -> DualPrototypes[Tensor]:
        """What prototypes ``(N, d)`` add to a query's fusion, ``(N, 1, d)``: once, not at every query and position."""
        parts = (("chosen", dual.core), ("chosen", dual.local), ("whole", dual.whole))
        added = (self.fuse_query_part(part, vectors[:, :, None, None]) for part, vectors in parts)
        return DualPrototypes(*(maps.flatten(1)[:, None] for maps in added))

    def fuse_query_part(self, part: str, inputs: Tensor) -> Tensor:
        """What a group of the query fusion's inputs, ``(N, C, h, w)``, adds to it: the convolution is linear."""
        width = self.fuse_query.out_channels
        at = {"features": 0, "whole": width, "chosen": 2 * width, "priors": 3 * width}[part]
        stop = None if part == "priors" else at + width
        bias = self.fuse_query.bias if part == "features" else None
        return F.conv2d(inputs, self.fuse_query.weight[:, at:stop], bias)
