"""The frozen backbone's features of a batch of training pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iir_sdk.model.backbone import Taps, taps_of
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.run.optimisation import autocast


def network_input(images: Tensor, config: TrainingConfig, device: torch.device) -> Tensor:
    """Pictures ``(B, 3, S, S)`` uint8 -> normalised, on the device, channels last."""
    scale, shift = (torch.from_numpy(v).to(device)[:, None, None] for v in config.preprocessing.scale_and_shift)
    return (images.to(device) * scale + shift).contiguous(memory_format=torch.channels_last)


def frozen_taps(backbone: nn.Module, images: Tensor, config: TrainingConfig, device: torch.device) -> Taps:
    """Float32 taps of pictures ``(B, 3, S, S)`` uint8, without gradients."""
    with torch.no_grad(), autocast(config, device):
        taps = taps_of(backbone, network_input(images, config, device))
    # Plain layout, as the bank's: the backward pass of some layers crashes on the other (torch 2.13, CPU).
    return Taps(*(t.float().contiguous() for t in taps))
