"""A predicted mask and the strokes that correct it, as one mask of a support."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SURE = 0.9
"""Probability from which on a pixel is taken as predicted, of what it is: object, or background."""


def corrected(
    probability: NDArray[np.float32], of_object: NDArray[np.bool_], of_background: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """What is known of a picture after its mask was corrected: the strokes, and what was predicted for sure.

    As the mask of a support of that very picture it makes the masks of all pictures better; the strokes alone do not,
    since they say nothing of most of it.

    Args:
        probability: ``(H, W)`` in [0, 1], predicted by the other supports, without this picture's strokes.
        of_object: ``(H, W)``, strokes on what is the object.
        of_background: ``(H, W)``, strokes on what is not; they hold where both are.

    Returns:
        ``(H, W)`` uint8, 1 the object, 0 background, 255 unknown. With some object it makes a support,
        ``add_support(image, labels == 1, known=labels != 255)``, without any a counterexample of ``labels == 0``.
    """
    labels = np.full(probability.shape, 255, np.uint8)
    labels[probability > SURE] = 1
    labels[probability < 1 - SURE] = 0
    labels[of_object] = 1
    labels[of_background] = 0
    return labels
