"""Two networks as one backbone: a CNN for edges and textures, a vision transformer for parts and kinds."""

from __future__ import annotations

from math import isqrt
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.errors import ConfigError
from iir_sdk.model.backbone import Backbone, Taps, VitBackbone, alike, create_network
from iir_sdk.model.cam import resize_map
from iir_sdk.model.prototypes import grid_size, resize_mask
from iir_sdk.model.tokens import full_precision, map_to_tokens, tokens_to_map, vector_lengths

SHARE = (2, 3)
"""How large the transformer sees a picture: numerator and denominator of its side over the CNN's."""

_CUBIC = -0.5
"""Of the cubic kernel that positions are resampled by; timm's, and not that of torch's plain interpolation."""


def build_backbone(name: str) -> Backbone:
    """The adapter of a timm model name, or of two joined by ``+``.

    Raises:
        ConfigError: a name timm does not know, or a network that no adapter fits.
    """
    if "+" in name:
        return TowersBackbone(name)
    return VitBackbone(name) if name.startswith("vit_") else Backbone(name)


class TowersBackbone(Backbone):
    """A CNN's stages at strides 8 and 16 as ``low`` and ``mid``; its last one and a vision transformer's as ``high``.

    ``high`` lies on the transformer's own grid. It holds the CNN's map at stride 32, the patch tokens of the block at
    three quarters of the depth, and those of the last one after the norm; at each position the first two are as long
    as the third, so that a cosine counts all alike. The CNN's head is not built. The head is the transformer's: it was
    trained on the class token, and is read here at every patch token.

    Args:
        name: two timm names, ``CNN+TRANSFORMER``, e.g. ``tf_efficientnet_lite2+vit_tiny_patch16_224``.

    Raises:
        ConfigError: a name timm does not know; a CNN without taps at strides 8, 16 and 32, or without an end before its
            head; no plain vision transformer with a class token and positions in a square.
    """

    def __init__(self, name: str) -> None:
        nn.Module.__init__(self)
        cnn, vit = name.split("+")
        self.cnn, self._tap_indices, (low, mid, last) = _stages(cnn)
        self.vit = _plain_transformer(vit)
        width, depth = int(cast(Any, self.vit).embed_dim), len(cast(Any, self.vit).blocks)
        self.channels = (low, mid, last + 2 * width)
        self._width, self._block = width, 3 * depth // 4
        self._patch = int(cast(Any, self.vit).patch_embed.patch_size[0])
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Taps:
        """Taps of normalised images ``(B, 3, H, W)``, sides multiples of 32: ``high`` at about ``2/3 H / 16``."""
        low, mid, stage = cast(Any, self.cnn).forward_intermediates(
            images, indices=self._tap_indices, intermediates_only=True, stop_early=True
        )
        middle, last = self._patch_maps(images)
        lengths = vector_lengths(last)
        parts = [m * (lengths / vector_lengths(m)).to(m.dtype) for m in (resize_map(stage, grid_size(last)), middle)]
        return Taps(low, mid, torch.cat([*parts, last.to(middle.dtype)], 1))

    def high_from_mid(self, mid: Tensor) -> Tensor:
        """There is no such thing: the towers run beside each other.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a backbone of two towers has no stages from mid to high; use cam='closed_form'.")

    def object_map(self, mid: Tensor, high: Tensor, mask: Tensor) -> Tensor:
        """The patch tokens, such that their mean over the map is that inside the mask minus that outside of it.

        What both have in common says nothing of the object; the class of the difference finds it better (measured).
        """
        pooled_map = self.pooled_map(high)
        share = resize_mask(mask, grid_size(pooled_map))
        inside, outside = (s / s.mean((2, 3), keepdim=True).clamp_min(1e-6) for s in (share, 1 - share))
        return pooled_map * (inside - outside).to(pooled_map.dtype)

    def pooled_map(self, high: Tensor) -> Tensor:
        """The last block's patch tokens, which the head is read at."""
        return high[:, -self._width :]

    def pre_logits(self, pooled_map: Tensor) -> Tensor:
        """The mean patch token, ``(B, C)``."""
        return pooled_map.mean((2, 3))

    @property
    def classifier(self) -> nn.Linear:
        """The transformer's head."""
        return cast(nn.Linear, cast(Any, self.vit).head)

    @property
    def supports_closed_form(self) -> bool:
        """Always: the mean of the patch tokens and one linear layer."""
        return True

    def check_order(self, images: Tensor) -> bool:
        """Whether the transformer's steps, taken one by one, give timm's own patch tokens."""
        last = self._patch_maps(images)[1]
        return alike(map_to_tokens(last), cast(Any, self.vit).forward_features(self._seen(images))[:, 1:])

    def _seen(self, images: Tensor) -> Tensor:
        """Pictures as the transformer sees them: its share of the side, rounded to patches."""
        patch, (share, whole) = self._patch, SHARE
        height, width = ((side * share // whole + patch // 2) // patch * patch for side in grid_size(images))
        return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)

    def _patch_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patch tokens ``(B, C, h, w)`` after the middle block and after the last one's norm."""
        vit = cast(Any, self.vit)
        patches = vit.patch_embed.proj(self._seen(images))
        size = grid_size(patches)
        first, positions = vit.pos_embed[:, :1], vit.pos_embed[:, 1:]
        patches = map_to_tokens(patches) + resampled_positions(positions, size)
        tokens = vit.norm_pre(torch.cat([(vit.cls_token + first).expand(patches.shape[0], -1, -1), patches], 1))
        for block in vit.blocks[: self._block]:
            tokens = block(tokens)
        middle = tokens
        for block in vit.blocks[self._block :]:
            tokens = block(tokens)
        return tokens_to_map(middle[:, 1:], size), tokens_to_map(vit.norm(tokens)[:, 1:], size)


@full_precision
def resampled_positions(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Embeddings ``(1, g*g, C)`` of a square's positions for a grid of another size, ``(1, h*w, C)``.

    Bicubic, antialiased where the grid is smaller, as timm does it; by two products of matrices, which every graph can
    hold for any size.
    """
    side = isqrt(int(positions.shape[1]))
    rows, columns = (_cubic_weights(count, side, positions.device) for count in size)
    square = positions.float().reshape(side, side, -1)
    across = columns @ square
    resampled: Tensor = (rows @ across.flatten(1)).reshape(1, -1, square.shape[2])
    return resampled


def _cubic_weights(count: int, side: int, device: torch.device) -> Tensor:
    """What each of ``side`` samples counts for each of ``count``, ``(count, side)``; each row sums to 1."""
    targets = torch.arange(count, device=device).float()
    scale = side / (targets[-1] + 1)
    centres = (targets + 0.5) * scale - 0.5
    distance = (centres[:, None] - torch.arange(side, device=device).float()).abs() / scale.clamp_min(1)
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    weights = torch.where(distance < 1, near, far) * (distance < 2)
    return weights / weights.sum(1, keepdim=True)


def _stages(name: str) -> tuple[nn.Module, list[int], tuple[int, int, int]]:
    """A CNN that ends at its last tap; which its last three are, and their channels."""
    net = cast(Any, create_network(name))
    entries = list(getattr(net.feature_info, "info", net.feature_info))
    if len(entries) < 3 or not hasattr(net, "prune_intermediate_layers"):
        raise ConfigError(f"backbone {name!r} has not three taps, or does not end at the last without its head.")
    taps = list(range(len(entries) - 3, len(entries)))
    if [entries[tap].get("reduction") for tap in taps] != [8, 16, 32]:
        raise ConfigError(f"backbone {name!r} has no three taps at strides 8, 16 and 32.")
    low, mid, last = (int(entries[tap]["num_chs"]) for tap in taps)
    net.prune_intermediate_layers(taps, prune_norm=True, prune_head=True)
    return net, taps, (low, mid, last)


def _plain_transformer(name: str) -> nn.Module:
    """A vision transformer with a class token, positions in a square and a linear head."""
    net = cast(Any, create_network(name, dynamic_img_size=True))
    plain = getattr(net, "num_prefix_tokens", 0) == 1 and getattr(net, "cls_token", None) is not None
    positions = getattr(net, "pos_embed", None)
    square = positions is not None and isqrt(positions.shape[1] - 1) ** 2 + 1 == positions.shape[1]
    if not plain or not square or not isinstance(net.head, nn.Linear):
        raise ConfigError(f"backbone {name!r} is no plain vision transformer with a class token and a linear head.")
    return cast(nn.Module, net)
