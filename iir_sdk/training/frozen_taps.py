"""The frozen backbone's features of a batch of training pictures."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from iir_sdk.errors import ConfigError
from iir_sdk.model.backbone import Taps, taps_of
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.optimisation import autocast


def network_input(images: Tensor, config: TrainingConfig, device: torch.device) -> Tensor:
    """Pictures ``(B, 3, S, S)`` uint8 -> normalised, on the device, channels last."""
    scale, shift = (torch.from_numpy(v).to(device)[:, None, None] for v in config.preprocessing.scale_and_shift)
    return (images.to(device) * scale + shift).contiguous(memory_format=torch.channels_last)


def compiled_backbone(backbone: nn.Module, config: TrainingConfig, device: torch.device) -> nn.Module:
    """The backbone as one compiled graph with its weights frozen into it, for pictures of ``config.view_size``.

    Raises:
        ConfigError: this machine cannot compile, mostly for want of a C++ compiler.
    """
    # A module's compiled form, not the module's own: its weights must keep their names in the checkpoint.
    compiled = cast(nn.Module, torch.compile(backbone, options={"freezing": True}))
    try:
        frozen_taps(compiled, torch.zeros(1, 3, config.view_size, config.view_size, dtype=torch.uint8), config, device)
    except RuntimeError as error:
        raise ConfigError(f"the backbone cannot be compiled here: {error}; set compiled=false.") from error
    return compiled


def frozen_taps(backbone: nn.Module, images: Tensor, config: TrainingConfig, device: torch.device) -> Taps:
    """Float32 taps of pictures ``(B, 3, S, S)`` uint8, without gradients."""
    with torch.no_grad(), autocast(config, device):
        taps = taps_of(backbone, network_input(images, config, device))
    # Plain layout, as the bank's: the backward pass of some layers crashes on the other (torch 2.13, CPU).
    return Taps(*(t.float().contiguous() for t in taps))
