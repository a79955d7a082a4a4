"""Which device, and which precision, PyTorch computes on and in."""

from __future__ import annotations

import warnings
from typing import TypeAlias

import torch

from iir_sdk.errors import ConfigError, DeviceError, IirWarning

Precision: TypeAlias = "torch.dtype | str | None"

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str | torch.device) -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU; anything else must name a device that works here (DeviceError)."""
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DeviceError(f"device={device!r} cannot be used here: {reason} Use device='auto' or 'cpu'.") from error
    return chosen


def pick_dtype(dtype: Precision, device: torch.device) -> torch.dtype:
    """None is float32, ``auto`` bfloat16 where it is fast, else float32; warns of bfloat16 that is emulated."""
    if dtype == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype or torch.float32
    if chosen not in _DTYPES.values():
        names = ", ".join(repr(name) for name in _DTYPES)
        raise ConfigError(f"dtype={dtype!r} must be None, 'auto', {names}, or torch's own of these.")
    assert chosen is not None
    if chosen == torch.bfloat16 and device.type == "cpu" and not computes_in_bfloat16(device):
        warnings.warn(
            "this CPU has no bfloat16 instructions (AVX-512 BF16 or AMX): torch emulates them, many times slower than "
            "float32. dtype='auto' picks bfloat16 only where it is fast.",
            IirWarning,
            stacklevel=6,
        )
    return chosen


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there: a CPU without instructions for it emulates them, many times slower than float32.

    Of CPUs, x86 with AVX-512 BF16 or AMX are known; on others, and where torch cannot tell, this says no.
    """
    if device.type == "cuda":
        # What torch itself answers counts emulation, too, and only knows of the current card.
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported") if device.type == "cpu" else ()
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)
