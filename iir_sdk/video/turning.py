"""How frames are to be shown: quarter turns and mirrorings that phones write beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROUNDED = 64
"""Below it a number of a display matrix is a zero that was rounded; one is 65,536."""


class Turn(NamedTuple):
    """What becomes of a frame's rows and columns, in this order."""

    swapped: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False


def turn_of(frame: Any) -> Turn:
    """By a frame's display matrix; a ValueError that says the angle where it is no quarter turn."""
    matrix = next((s for s in frame.side_data if s.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return Turn()
    # A place (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = (int(n) for n in np.frombuffer(bytes(matrix), np.int32)[:5])
    if max(abs(b), abs(c)) < _ROUNDED < min(abs(a), abs(d)):
        return Turn(False, d < 0, a < 0)
    if max(abs(a), abs(d)) < _ROUNDED < min(abs(b), abs(c)):
        return Turn(True, b < 0, c < 0)
    raise ValueError(f"turned by {frame.rotation} degrees")


def shown_upright(pixels: NDArray[np.uint8], turn: Turn) -> NDArray[np.uint8]:
    """A frame ``(H, W, C)`` as it is to be shown."""
    upright = pixels.swapaxes(0, 1) if turn.swapped else pixels
    upright = upright[::-1] if turn.rows_reversed else upright
    return upright[:, ::-1] if turn.columns_reversed else upright
