"""A predicted mask and the strokes that correct it: spread to what looks alike, and as one mask of a support."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iir_sdk.pictures.preprocess import resized_map
from iir_sdk.results.full_size import probability_map

SURE = 0.9
"""Probability from which on a pixel is taken as predicted, of what it is: object, or background."""

SIDE = 48
"""Cells of a side that strokes are spread on."""
_CLIPPED = 4.0
"""Log-odds beyond which a prediction resists no more: what is wrong is often sure."""
_AIMED_AT = 3.0
"""Log-odds that places under strokes are brought to."""
_NEAR, _ALIKE = 0.2, 0.7
"""How far a stroke reaches: in shares of a side, and in the difference of two looks, which are 0 to 2 apart."""
_DOUBT = 0.3
_FEWEST_COVERED = 0.15
"""Of a cell: with less of it under a stroke, it is not the stroke's."""
_MOST_CELLS = 300


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


def corrected_and_spread(
    sure: NDArray[np.uint8], marks: NDArray[np.uint8], looks: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """As :func:`corrected`, with strokes spread over what was predicted for sure and is wrong where they are.

    Args:
        sure: ``(h, w)``, what :func:`corrected` made before there were strokes; any size.
        marks: ``(H, W)``, see :func:`spread`; ``looks`` as well.

    Returns:
        ``(H, W)`` uint8, 1 the object, 0 background, 255 unknown.
    """
    lead = np.where(sure == 1, np.float32(_CLIPPED), np.where(sure == 0, np.float32(-_CLIPPED), np.float32(0)))
    lead = resized_map(lead, (SIDE, SIDE))
    probability = probability_map(spread(lead, marks, looks), (marks.shape[0], marks.shape[1]))
    return corrected(probability, marks == 1, marks == 0)


def spread(lead: NDArray[np.float32], marks: NDArray[np.uint8], looks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-odds after strokes: what is wrong under them is wrong as well where it is near and looks alike.

    What the strokes add is the mean of a Gaussian process (a kernel of distance and looks) through what is missing
    under them: nothing where the prediction was right already, and nothing far from them.

    Args:
        lead: ``(h, w)``, predicted; any size.
        marks: ``(H, W)`` uint8 of any size, 1 under strokes on the object, 0 under those on background, 255 elsewhere.
        looks: ``(C, 48, 48)``, of :meth:`iir_sdk.engines.base.Engine.looks`.

    Returns:
        ``(h, w)`` float32; the lead itself where there are no strokes.
    """
    shares = [resized_map((marks == side).astype(np.float32), (SIDE, SIDE)).ravel() for side in (0, 1)]
    covered = np.maximum(*shares)
    cells = np.flatnonzero(covered >= min(_FEWEST_COVERED, float(covered.max())))
    if not covered.any():
        return lead
    lead = np.clip(lead, -_CLIPPED, _CLIPPED)
    cells = cells[:: -(-len(cells) // _MOST_CELLS)]
    side = np.where(shares[1][cells] >= shares[0][cells], np.float32(1), np.float32(-1))
    missing = side * np.maximum(0, _AIMED_AT - side * resized_map(lead, (SIDE, SIDE)).ravel()[cells])
    kernel = _kernel(looks.reshape(len(looks), -1), cells)
    added = kernel @ np.linalg.solve(kernel[cells] + _DOUBT * np.eye(len(cells), dtype=np.float32), missing)
    return lead + resized_map(added.reshape(SIDE, SIDE), (lead.shape[0], lead.shape[1]))


def _kernel(looks: NDArray[np.float32], cells: NDArray[np.intp]) -> NDArray[np.float32]:
    """``(48 * 48, N)`` in [0, 1]: how near and alike every cell is to each of some."""
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    places = np.stack([rows, columns], 1).astype(np.float32) / SIDE
    apart = ((places[:, None] - places[cells]) ** 2).sum(-1)
    unlike = 1 - looks.T @ looks[:, cells]
    kernel: NDArray[np.float32] = np.exp(-apart / (2 * _NEAR**2) - unlike / _ALIKE**2)
    return kernel
