"""The optional base learner: a PSPNet head that knows the base classes and keeps them out of the mask (section 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.backbone import Taps
from iir_sdk.model.cam import resize_map
from iir_sdk.model.tokens import full_precision

BINS = (1, 2, 3, 6)
"""Grids of the pyramid (Zhao et al., 2017)."""


class PyramidPooling(nn.Module):
    """Context at several scales beside the features: ``(N, C, h, w)`` -> ``(N, C + 4 * (C // 4), h, w)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // len(BINS)
        # Group norm: one-pixel grids and small batches leave batch norm nothing to count.
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.GroupNorm(1, inner), nn.ReLU()) for _ in BINS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pool to each grid, project, enlarge, and put beside ``x``."""
        size = (x.shape[2], x.shape[3])
        pooled = [
            resize_map(level(F.adaptive_avg_pool2d(x, side)), size)
            for side, level in zip(BINS, self.levels, strict=True)
        ]
        return torch.cat([x, *pooled], 1)


class BaseLearner(nn.Module):
    """PSPNet's head on ``mid`` and ``high``, by the taps' channels: logits of the background and each base class."""

    def __init__(self, channels: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        width = 256
        self.reduce = nn.Sequential(nn.Conv2d(channels[1] + channels[2], width, 1), nn.GroupNorm(1, width), nn.ReLU())
        self.pyramid = PyramidPooling(width)
        self.classify = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(width, classes + 1, 1),
        )

    def forward(self, taps: Taps) -> Tensor:
        """Taps -> ``(N, classes + 1, h, w)`` at ``mid``'s grid, background first."""
        size = (taps.mid.shape[2], taps.mid.shape[3])
        logits: Tensor = self.classify(self.pyramid(self.reduce(torch.cat([taps.mid, resize_map(taps.high, size)], 1))))
        return logits

    def base_probability(self, taps: Taps, own_class: Tensor | None = None) -> Tensor:
        """Summed probability of the base classes, ``(N, 1, h, w)`` float32 in [0, 1].

        But for ``own_class (N,)``: in training the episode asks for one of them, and that one must not be suppressed.
        """
        probability: Tensor = self(taps).float().softmax(1)[:, 1:]
        total = probability.sum(1, keepdim=True)
        if own_class is None:
            return total
        asked_for = probability.gather(1, own_class[:, None, None, None].expand(-1, 1, *probability.shape[2:]))
        return (total - asked_for).clamp_min(0)


class BackgroundMerge(nn.Module):
    """Merges the base classes' probability into the background by a 1x1 conv that starts as the identity (BAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 1, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))

    @full_precision
    def forward(self, logits: Tensor, base: Tensor) -> Tensor:
        """``(N, 2, h, w)`` logits with the base classes' summed probability ``(N, 1, h', w')`` in the background.

        The same softmax as before while the conv is the identity.
        """
        probability = logits.float().softmax(1)
        base = resize_map(base, (logits.shape[2], logits.shape[3]))
        background = self.mix(torch.cat([probability[:, :1], base], 1))
        return torch.cat([background, probability[:, 1:]], 1).clamp_min(1e-6).log()
