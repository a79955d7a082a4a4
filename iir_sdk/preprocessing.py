"""From a picture's pixels to the network's input, and from its output back to the picture's own size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.errors import ConfigError


@dataclass(frozen=True)
class Preprocessing:
    """How a checkpoint wants its pictures.

    Attributes:
        size: side of the square input in pixels, a multiple of 32; pictures are resized to it, aspect not kept.
        mean: per channel, of values in [0, 1].
        std: per channel.
        interpolation: ``bilinear`` or ``bicubic``, always antialiased.
    """

    size: int = 384
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: naming the field and what was expected.
        """
        if not isinstance(self.size, int) or self.size % 32 or not 64 <= self.size <= 2048:
            raise ConfigError(f"preprocessing: size={self.size!r} must be a multiple of 32 in [64, 2048].")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(isinstance(v, (int, float)) and 0 <= v <= 1 for v in values):
                raise ConfigError(f"preprocessing: {name}={values!r} must be three numbers in [0, 1].")
        if min(self.std) <= 0:
            raise ConfigError(f"preprocessing: std={self.std!r} must be above 0.")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ConfigError(f"preprocessing: interpolation={self.interpolation!r} must be bilinear or bicubic.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Build from plain values.

        Raises:
            ConfigError: on an unknown key or a value out of range.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"preprocessing: unknown key {unknown[0]!r}.")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """The plain values, as :meth:`from_dict` takes them."""
        return asdict(self)

    def image(self, pixels: NDArray[np.uint8]) -> Tensor:
        """``(H, W, 3)`` uint8 RGB -> ``(3, size, size)`` float32, resized but not yet normalised, in [0, 1]."""
        # A copy where the array is read-only: torch has no read-only tensors and warns of them.
        source = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        chw = source.permute(2, 0, 1)[None].float()
        resized = F.interpolate(
            chw, (self.size, self.size), mode=self.interpolation, align_corners=False, antialias=True
        )
        return resized[0].clamp(0, 255) / 255

    def mask(self, mask: NDArray[np.bool_]) -> Tensor:
        """``(H, W)`` bool -> ``(size, size)`` float32, share of foreground in [0, 1]."""
        source = torch.from_numpy(mask.astype(np.float32))[None, None]
        resized = F.interpolate(source, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        return resized[0, 0]

    def normalise(self, images: Tensor) -> Tensor:
        """Subtract mean and divide by std: ``(..., 3, H, W)`` in [0, 1]."""
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.std, device=images.device)[:, None, None]
        return (images - mean) / std


def restore(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Foreground probability at a picture's own size.

    Args:
        logits: ``(N, 2, h, w)``, background and foreground.
        size: ``(height, width)`` of the picture.

    Returns:
        ``(N, H, W)`` float32 in [0, 1].
    """
    # A two-way softmax is the sigmoid of the difference; one map is resized and not two.
    lead = (logits[:, 1:] - logits[:, :1]).float()
    return F.interpolate(lead, size, mode="bilinear", align_corners=False).sigmoid()[:, 0]
