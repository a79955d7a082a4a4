"""Cross entropy and Dice of the final map, cross entropy of the heads on the way (method, section 7)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.data.dataset import IGNORE


def mask_loss(logits: Tensor, target: Tensor, *, dice_weight: float = 1.0) -> Tensor:
    """Cross entropy plus weighed Dice of logits ``(B, 2, h, w)`` at the size of the target, in {0, 1, 255}."""
    size = (target.shape[1], target.shape[2])
    full = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
    known = target != IGNORE
    entropy = F.cross_entropy(full, target, ignore_index=IGNORE, reduction="sum") / known.sum().clamp_min(1)
    return entropy + dice_weight * dice_loss((full[:, 1] - full[:, 0]).sigmoid(), target)


def dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """``1 - (2 |P T| + 1) / (|P| + |T| + 1)``, mean over the pictures that hold the object (Milletari et al., 2016)."""
    known = (target != IGNORE).float()
    truth = (target == 1).float()
    both = (probability * truth).sum((1, 2))
    total = (probability * known).sum((1, 2)) + truth.sum((1, 2))
    dice = 1 - (2 * both + 1) / (total + 1)
    present = (truth.sum((1, 2)) > 0).float()
    return (dice * present).sum() / present.sum().clamp_min(1)


def share_loss(logits: Tensor, share: Tensor) -> Tensor:
    """Cross entropy of logits ``(B, 2, h, w)`` against cells' shares of foreground, negative where they are ignored."""
    known = (share >= 0).float()
    share = share.clamp_min(0)
    entropy = F.cross_entropy(logits.float(), torch.stack([1 - share, share], 1), reduction="none")
    return (entropy * known).sum() / known.sum().clamp_min(1)


def auxiliary_loss(logits: tuple[Tensor, ...], share: Tensor) -> Tensor:
    """Half the loss of the start head plus half the mean over the blocks' heads: one branch's part of section 7."""
    start, *blocks = (share_loss(x, share) for x in logits)
    return 0.5 * start + (0.25 * torch.stack(blocks).mean() if blocks else 0.0)
