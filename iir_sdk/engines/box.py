"""From a box around an object to its mask: the network segments what the box shows by the box itself."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.base import Engine
from iir_sdk.errors import IirWarning
from iir_sdk.results.full_size import mask_map

_ROUNDS = 2
"""On the demo's eleven objects: IoU is 0.75 of the box itself, 0.84 after one round and 0.87 after two."""
_LEAST_FILLED = 0.05


def mask_in_box(engine: Engine, pixels: NDArray[np.uint8], box: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a box ``(H, W)`` shows of a picture ``(H, W, 3)``: bool ``(H, W)``, all of it inside the box.

    Everything outside is background. The box serves as the mask of a support, by which the box and its surroundings
    are segmented; what comes of it within the box serves as the next one.

    Warns:
        IirWarning: hardly anything was found; the box itself is the mask.
    """
    rows, columns = engine.identity.preprocessing.support_cut(box, np.ones_like(box))
    query = np.ascontiguousarray(pixels[rows, columns])
    mask = box
    for _ in range(_ROUNDS):
        (segmented,), _timings = engine.segment([query], engine.prepare([engine.encode(pixels, mask)]))
        shown = np.zeros_like(box)
        shown[rows, columns] = mask_map(segmented.leads[0], (query.shape[0], query.shape[1]), 0.5)
        mask = shown & box
        filled = float(mask.sum() / box.sum())
        if filled < _LEAST_FILLED:
            warnings.warn(
                f"the network finds an object in {filled:.1%} of the box alone, so all of the box is taken for it. "
                "Draw a mask instead, or a closer box.",
                IirWarning,
                stacklevel=3,
            )
            return box
    return mask
