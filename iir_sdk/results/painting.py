"""Paints labels over a picture."""

from __future__ import annotations

from typing import Any

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


_ROWS = 64
"""Painted at a time: few enough to stay in the cache."""


def painted(pixels: NDArray[np.uint8], labels: NDArray[np.integer[Any]], opacity: float) -> Image.Image:
    """RGB picture ``(H, W, 3)`` with each label of ``(H, W)`` tinted in its colour and outlined; 0 is background."""
    height, width = labels.shape
    image = Image.new("RGB", (width, height))
    highest = int(labels.max())
    for top in range(0, height, _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        strip = Image.fromarray(pixels[rows])
        if labels[rows].any():
            _paint(strip, labels[rows], _outline(labels, rows), highest, opacity)
        image.paste(strip, (0, top))
    return image


def _paint(
    strip: Image.Image,
    labels: NDArray[np.integer[Any]],
    outline: NDArray[np.bool_],
    highest: int,
    opacity: float,
) -> None:
    values = np.arange(256)
    for value in range(1, highest + 1):
        region = labels == value
        if region.any():
            colour = COLOURS[(value - 1) % len(COLOURS)]
            # What each 8-bit value becomes under the colour, for red, green and blue.
            tint = [round(v) for channel in colour for v in values + opacity * (channel - values)]
            strip.paste(strip.point(tint), mask=Image.fromarray(region))
            strip.paste(colour, mask=Image.fromarray(region & outline))


def _outline(labels: NDArray[np.integer[Any]], rows: slice) -> NDArray[np.bool_]:
    """Pixels of some rows that touch another label or background."""
    here = labels[rows]
    above = labels[max(0, rows.start - 1) : rows.stop - 1] if rows.start else labels[[0, *range(rows.stop - 1)]]
    last = min(rows.stop, len(labels) - 1)
    below = np.concatenate([here[1:], labels[last : last + 1]])
    outline: NDArray[np.bool_] = (here != above) | (here != below)
    across = here[:, 1:] != here[:, :-1]
    outline[:, 1:] |= across
    outline[:, :-1] |= across
    return outline
