"""Keeps a function out of autocast: sums and cosines that half precision would overflow or blur."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


def full_precision(function: Callable[Arguments, Outcome]) -> Callable[Arguments, Outcome]:
    """Run ``function`` with autocast off on its first tensor's device; it casts its inputs to float32 itself."""

    @wraps(function)
    def outside_autocast(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Outcome:
        device = next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)).device.type
        if not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return outside_autocast
