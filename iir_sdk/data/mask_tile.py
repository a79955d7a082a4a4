"""A small square picture with masks laid over it and a title, for sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Layer = tuple[NDArray[np.bool_], tuple[int, int, int], float]
"""Where, in which colour, how opaque (1 hides the picture)."""

RED, GREEN, YELLOW = (255, 0, 0), (0, 200, 0), (255, 230, 0)


def mask_tile(pixels: NDArray[np.uint8], layers: Sequence[Layer], title: str, side: int) -> Image.Image:
    """Draw a tile.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        layers: laid over it in turn.
        title: written at the top.
        side: of the tile in pixels.
    """
    shown = pixels.astype(np.float32)
    for mask, colour, opacity in layers:
        shown[mask] = (1 - opacity) * shown[mask] + opacity * np.array(colour, np.float32)
    tile = Image.fromarray(shown.astype(np.uint8)).resize((side, side))
    ImageDraw.Draw(tile).text((4, 4), title, fill="white", stroke_width=2, stroke_fill="black")
    return tile
