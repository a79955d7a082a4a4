"""Augmentation of a picture and all its masks together."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import torch
from torch import Tensor

from iir_sdk.torchvision_import import ensure_torchvision

ensure_torchvision()

from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as transform  # noqa: E402


class Augmented(NamedTuple):
    """A picture ``(3, S, S)`` uint8 and its masks ``(M, S, S)`` bool."""

    image: Tensor
    masks: Tensor


_LIGHT = v2.Compose(
    [
        v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)], p=0.8),
        v2.RandomApply([v2.ColorJitter(hue=0.08)], p=0.15),
        v2.RandomGrayscale(p=0.05),
        v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.5))], p=0.1),
    ]
)


def random_view(image: Tensor, masks: Tensor, chosen: int, size: int, rng: random.Random) -> Augmented:
    """A random crop of ``(3, H, W)`` uint8 and masks ``(M, H, W)`` that shows the chosen object, flipped and turned.

    ``rng`` is of the geometry; colours use torch's global generator.
    """
    top, left, height, width = _crop_box(masks[chosen], rng)
    image, masks = image[:, top : top + height, left : left + width], masks[:, top : top + height, left : left + width]
    image = transform.resize(image, [size, size], antialias=True)
    shares = transform.resize(masks.float(), [size, size], antialias=True)
    if rng.random() < 0.5:
        image, shares = transform.horizontal_flip(image), transform.horizontal_flip(shares)
    if rng.random() < 0.25:
        angle = rng.uniform(-15, 15)
        bilinear = v2.InterpolationMode.BILINEAR
        image = transform.rotate(image, angle, interpolation=bilinear)
        shares = transform.rotate(shares, angle, interpolation=bilinear)
    return Augmented(image, shares > 0.5)


def change_light(image: Tensor) -> Tensor:
    """Colour jitter, sometimes grey or blurred: ``(3, H, W)`` uint8, from torch's global generator."""
    changed: Tensor = _LIGHT(image)
    return changed


def _crop_box(mask: Tensor, rng: random.Random) -> tuple[int, int, int, int]:
    """A box that holds a fair part of the object; the whole picture after too many misses, or by chance."""
    height, width = mask.shape
    total = mask.sum()
    if rng.random() < 0.3:
        return 0, 0, height, width
    for _ in range(12):
        area = math.exp(rng.uniform(math.log(0.1), 0.0)) * height * width
        aspect = math.exp(rng.uniform(-0.45, 0.45))
        h = min(height, max(48, round(math.sqrt(area / aspect))))
        w = min(width, max(48, round(math.sqrt(area * aspect))))
        top, left = rng.randint(0, height - min(h, height)), rng.randint(0, width - min(w, width))
        inside = mask[top : top + h, left : left + w].sum()
        share = inside / (h * w)
        if 0.015 <= share <= 0.85 and (inside >= 0.4 * total or share >= 0.15):
            return top, left, h, w
    return 0, 0, height, width


def paste(base: Augmented, patch: Tensor, alpha: Tensor, rng: random.Random) -> tuple[Augmented, Tensor]:
    """Paste an object ``(3, h, w)`` by its ``alpha (1, h, w)`` in [0, 1] at a random place and size, in random light.

    Gives the picture, whose masks lose what the object covers, and the object's mask ``(S, S)`` bool.
    """
    size = base.image.shape[1]
    patch, alpha = _resized_object(patch, alpha, size, rng)
    height, width = patch.shape[1:]
    top = rng.randint(-height // 4, size - 3 * height // 4)
    left = rng.randint(-width // 4, size - 3 * width // 4)
    y0, x0, y1, x1 = max(0, top), max(0, left), min(size, top + height), min(size, left + width)
    patch = patch[:, y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = alpha[:, y0 - top : y1 - top, x0 - left : x1 - left]
    image, covered = base.image.clone(), torch.zeros(size, size, dtype=torch.bool)
    under = image[:, y0:y1, x0:x1].float()
    image[:, y0:y1, x0:x1] = (under + alpha * (patch.float() - under)).round().to(torch.uint8)
    covered[y0:y1, x0:x1] = alpha[0] > 0.5
    return Augmented(image, base.masks & ~covered), covered


def _resized_object(patch: Tensor, alpha: Tensor, size: int, rng: random.Random) -> tuple[Tensor, Tensor]:
    area = math.exp(rng.uniform(math.log(0.02), math.log(0.35))) * size * size
    aspect = patch.shape[2] / patch.shape[1] * math.exp(rng.uniform(-0.2, 0.2))
    height = int(min(size, max(16, math.sqrt(area / aspect))))
    width = int(min(size, max(16, math.sqrt(area * aspect))))
    if rng.random() < 0.5:
        patch, alpha = transform.horizontal_flip(patch), transform.horizontal_flip(alpha)
    patch = transform.resize(patch, [height, width], antialias=True)
    alpha = transform.resize(alpha, [height, width], antialias=True).clamp(0, 1)
    light = rng.uniform(0.7, 1.3)
    return (patch.float() * light).clamp(0, 255).to(torch.uint8), alpha
