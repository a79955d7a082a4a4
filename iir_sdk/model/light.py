"""The light decoder's blocks and mask head: what they cost is a fifth of the full ones'."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.model.attention import Attention, CrossAttention, KeysValues, Labels, Residual
from iir_sdk.model.cam import resize_map
from iir_sdk.model.tokens import laid_out_like, map_to_tokens, tokens_to_map


class HalvedSelfAttention(nn.Module):
    """Self attention on the map at half its size, enlarged and added: a sixteenth of the pairs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, d, h, w)`` -> the same shape."""
        halved = F.avg_pool2d(x, 2, ceil_mode=True)
        tokens = self.norm(map_to_tokens(halved))
        context = self.attention(tokens, self.attention.keys_values(tokens))
        refined: Tensor = x + resize_map(
            tokens_to_map(context, (halved.shape[2], halved.shape[3])), (x.shape[2], x.shape[3])
        )
        return refined


def conv_feed_forward(width: int) -> Residual:
    """Two 1x1 convolutions of maps ``(N, d, h, w)`` with a depthwise 3x3 between them, group-normalised first."""
    inner = 2 * width
    return Residual(
        nn.GroupNorm(1, width),
        nn.Conv2d(width, inner, 1),
        nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, width, 1),
    )


class LightBlock(nn.Module):
    """Halved self attention on both sides, cross attention query <- support, depthwise convolutions on both."""

    def __init__(self, width: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.self_attention = HalvedSelfAttention(width, heads)
        self.cross_attention = CrossAttention(width, heads, perceptron=False) if cross else None
        self.conv = conv_feed_forward(width)
        self.support_aux = nn.Conv2d(width, 2, 1) if cross else None
        self.query_aux = nn.Conv2d(width, 2, 1) if cross else None

    def self_step(self, x: Tensor) -> Tensor:
        """Refine a map ``(N, d, h, w)`` by itself; a support's keys and values are taken from the outcome."""
        refined: Tensor = self.conv(self.self_attention(x))
        return refined

    def cross_step(self, x: Tensor, support: KeysValues | None, bias: Tensor, labels: Labels | None) -> Tensor:
        """Refine the query map ``(N, d, h, w)`` by itself and the support's tokens."""
        x = self.self_attention(x)
        if self.cross_attention is not None and support is not None:
            tokens = self.cross_attention(map_to_tokens(x), support, bias, labels)
            x = tokens_to_map(tokens, (x.shape[2], x.shape[3]))
        refined: Tensor = self.conv(x)
        return refined


class LightHead(nn.Module):
    """Refined map, ``low`` features and priors, each projected and summed at stride 8 -> 2-way logits."""

    def __init__(self, width: int, low: int, priors: int, hidden: int) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.GroupNorm(1, low), nn.Conv2d(low, hidden, 1))
        self.reduce = nn.Conv2d(width, hidden, 1, bias=False)
        self.priors = nn.Conv2d(priors, hidden, 1, bias=False)
        self.layers = nn.Sequential(
            nn.ReLU(inplace=True), *_separable(hidden), *_separable(hidden), nn.Conv2d(hidden, 2, 1)
        )

    def detail(self, low: Tensor) -> Tensor:
        """What ``low (N, C, 2h, 2w)`` adds, ``(N, hidden, 2h, 2w)``, whatever the label."""
        added: Tensor = self.low(low)
        return added

    def forward(self, x: Tensor, detail: Tensor, priors: Tensor) -> Tensor:
        """``x (N, d, h, w)``, ``detail`` of N or of one query, ``priors (N, P, 2h, 2w)`` -> ``(N, 2, 2h, 2w)``."""
        enlarged = resize_map(self.reduce(x), (detail.shape[2], detail.shape[3]))
        logits: Tensor = self.layers(enlarged + detail + self.priors(laid_out_like(detail, priors.to(x.dtype))))
        return logits


def _separable(width: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1),
        nn.GroupNorm(8, width),
        nn.ReLU(inplace=True),
    )
