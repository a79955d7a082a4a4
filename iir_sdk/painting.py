"""Paints labels over a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS: tuple[tuple[int, int, int], ...] = (
    (255, 64, 87),
    (0, 168, 232),
    (255, 190, 11),
    (61, 220, 132),
    (160, 92, 255),
    (255, 122, 26),
    (0, 206, 201),
    (240, 98, 200),
)
"""RGB of the first, second, ... label in overlays and palette masks, used in turn."""


def painted(pixels: NDArray[np.uint8], labels: NDArray[np.integer], opacity: float) -> Image.Image:
    """RGB picture ``(H, W, 3)`` with each label of ``(H, W)`` tinted in its colour and outlined; 0 is background."""
    picture = pixels.astype(np.float32)
    for i in range(int(labels.max())):
        colour = np.array(COLOURS[i % len(COLOURS)], np.float32)
        region = labels == i + 1
        picture[region] += opacity * (colour - picture[region])
        picture[_outline(region)] = colour
    return Image.fromarray(picture.round().astype(np.uint8))


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the region that touch its outside."""
    padded = np.pad(region, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: NDArray[np.bool_] = region & ~inner
    return outline
