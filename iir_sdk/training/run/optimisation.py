"""The optimiser, its schedule and the weight average, by a recipe."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from iir_sdk.engines.devices import computes_in_bfloat16
from iir_sdk.training.config import TrainingConfig

MOMENTUM, POLY_POWER = 0.9, 0.9
"""As this line of work has them."""

_Weights = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(module: nn.Module, config: TrainingConfig) -> Optimizer:
    """AdamW or SGD over every parameter that learns; matrices and kernels decay, not biases, norms and scales."""
    learning = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": config.optimiser.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimiser.name == "sgd":
        return SGD(groups, lr=config.optimiser.learning_rate, momentum=MOMENTUM)
    return AdamW(groups, lr=config.optimiser.learning_rate)


def build_schedule(optimizer: Optimizer, config: TrainingConfig, steps: int) -> LambdaLR:
    """The learning rate of each of ``steps`` steps."""
    return LambdaLR(optimizer, lambda step: rate(step, steps, config))


def rate(step: int, steps: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up times cosine or poly."""
    warmed = min(1.0, (step + 1) / max(1, config.optimiser.warmup))
    done = min(1.0, step / steps)
    if config.optimiser.schedule == "poly":
        return float(warmed * (1 - done) ** POLY_POWER)
    return warmed * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def build_average(module: nn.Module, config: TrainingConfig) -> AveragedModel:
    """The exponential average of the weights; with ``ema=0`` it is the weights themselves.

    Its decay grows to ``ema`` as ``n / (n + 3)`` with the updates ``n`` so far: an average over about the last third of
    them. With 0.998 from the start, more than half of what a run of 300 steps saves would be its random start.
    """
    return AveragedModel(module, multi_avg_fn=partial(_move_average, config.optimiser.ema))


def _move_average(ema: float, averaged: _Weights, current: _Weights, updates: Tensor | int) -> None:
    done = int(updates)
    get_ema_multi_avg_fn(min(ema, done / (done + 3)))(averaged, current, done)


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """The precision of a recipe's forward passes; ``auto`` is bfloat16 where the device computes in it."""
    lowered = config.run.precision == "bfloat16" or (config.run.precision == "auto" and computes_in_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=lowered)
