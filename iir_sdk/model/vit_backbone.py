"""A plain vision transformer, such as DINOv2 ViT-L/14, as three taps and a head."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from iir_sdk.errors import ConfigError
from iir_sdk.model.backbone import Backbone, Taps, create_network


class VitBackbone(Backbone):
    """Blocks at a quarter, three quarters and the end of the depth as ``low``, ``mid`` and ``high``, all at one stride.

    ``mid`` carries the class token beside every patch token (``2 C`` channels), so that the last blocks can be run on a
    changed map. The linear head reads the mean patch token, which makes the closed-form CAM exact; of a head trained on
    class and patch tokens together, as DINOv2's, that is the patch tokens' half.

    Args:
        name: timm name of a vision transformer, e.g. ``vit_large_patch14_dinov2``.
        classifier: keep a 1000-way head.

    Raises:
        ConfigError: the network is not a plain vision transformer.
    """

    def __init__(self, name: str, *, classifier: bool = True) -> None:
        nn.Module.__init__(self)
        self.net = create_network(name, num_classes=0, dynamic_img_size=True)
        for part in ("blocks", "norm", "cls_token", "patch_embed"):
            if getattr(self.net, part, None) is None:
                raise ConfigError(f"backbone {name!r} is no plain vision transformer: it has no {part}.")
        width, depth = int(cast(Any, self.net).embed_dim), len(cast(Any, self.net).blocks)
        if depth < 4:
            raise ConfigError(f"backbone {name!r} has {depth} blocks; four are needed.")
        self.channels = (width, 2 * width, width)
        self._tap_indices = [depth // 4 - 1, 3 * depth // 4 - 1]
        self.head = nn.Linear(width, 1000) if classifier else None
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Taps:
        """Taps of normalised images ``(B, 3, H, W)``, sides multiples of the patch."""
        net = cast(Any, self.net)
        (low, _), (mid, prefix) = net.forward_intermediates(
            images, indices=self._tap_indices, return_prefix_tokens=True, intermediates_only=True, stop_early=True
        )
        spread = prefix[:, 0, :, None, None].expand(-1, -1, *mid.shape[2:])
        mid = torch.cat([mid, spread], 1)
        # The blocks after the tap have not run yet; here is where they do.
        return Taps(low, mid, self.high_from_mid(mid))

    def high_from_mid(self, mid: Tensor) -> Tensor:
        """Run the last blocks: ``mid (B, 2 C, h, w)`` -> ``high (B, C, h, w)``.

        A mask on the map dims patch and class tokens alike; the class token is taken where it is strongest.
        """
        net, width = cast(Any, self.net), mid.shape[1] // 2
        patches = mid[:, :width].flatten(2).transpose(1, 2)
        copies = mid[:, width:].flatten(2)
        strongest = copies.detach().square().sum(1).argmax(1)
        token = copies.gather(2, strongest[:, None, None].expand(-1, width, 1)).transpose(1, 2)
        tokens = torch.cat([token, patches], 1)
        for block in net.blocks[self._tap_indices[1] + 1 :]:
            tokens = block(tokens)
        tokens = net.norm(tokens)[:, 1:]
        high: Tensor = tokens.transpose(1, 2).reshape(len(mid), width, *mid.shape[2:])
        return high

    def pooled_map(self, high: Tensor) -> Tensor:
        """The patch tokens themselves are what the head pools."""
        return high

    def logits(self, pooled_map: Tensor) -> Tensor:
        """Class logits ``(B, 1000)`` of a pooled map."""
        logits: Tensor = self.classifier(self.pre_logits(pooled_map))
        return logits

    def pre_logits(self, pooled_map: Tensor) -> Tensor:
        """The mean patch token, ``(B, C)``."""
        return pooled_map.mean((2, 3))

    @property
    def map_channels(self) -> int:
        """The patch tokens' half of ``mid``; the class token's is the same everywhere and would only shift a CAM."""
        return self.channels[1] // 2

    @property
    def has_classifier(self) -> bool:
        """Whether there is a head."""
        return self.head is not None

    @property
    def classifier(self) -> nn.Linear:
        """The head; only where :attr:`has_classifier`."""
        assert self.head is not None
        return self.head

    @property
    def supports_closed_form(self) -> bool:
        """Always: the head is the mean of the patch tokens and one linear layer."""
        return True

    def check_order(self, images: Tensor) -> bool:
        """Whether running the last blocks after ``mid`` gives the network's own final patch tokens."""
        own = cast(Any, self.net).forward_features(images)[:, cast(Any, self.net).num_prefix_tokens :]
        split = self(images).high.flatten(2).transpose(1, 2)
        return bool(split.shape == own.shape and (split - own).abs().max() <= 1e-4 * own.abs().max())
