"""Whether a support shows enough of its object, and of what is not."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import IirWarning
from iir_sdk.pictures.preprocess import Preprocessing

# From 1,824 supports of 16 training sets, at their own size and scaled down: mean IoU is 0.28 where the object has
# fewer than 100 pixels, 0.44 up to 400, 0.14 where it has more but fills fewer than 8 cells, and 0.53 for the rest. Of
# the 245 at their own size, the 16 that this warns of reach 0.17, the others 0.53. Four further shots raise thin
# objects' IoU by half; a closer cut to a part of them lowers it.
_FEWEST_PIXELS = 400
_FEWEST_CELLS = 8

_CELL = 16
"""Side of a cell in pixels of the network's input: the grid that supports are compared on."""

_USUAL_SIDE = 384
"""Of the input: where it is smaller, every object has few cells, and no other support would have more."""


def warn_of_small_object(mask: NDArray[np.bool_], known: NDArray[np.bool_], preprocessing: Preprocessing) -> None:
    """Warn of a support whose object ``(H, W)`` is too small, or too thin, to be told from others by.

    A few marks on it, with all around them unknown, do not tell how large it is.
    """
    if preprocessing.marks_only(mask, known):
        return
    pixels = np.count_nonzero(mask)
    rows, columns = preprocessing.support_cut(mask, known)
    cut = mask[rows, columns]
    share = np.count_nonzero(cut) / cut.size
    cells = share * (max(preprocessing.support_size, _USUAL_SIDE) / _CELL) ** 2
    if pixels < _FEWEST_PIXELS:
        trouble = f"has {pixels} pixels; below {_FEWEST_PIXELS}, masks are the worse the fewer there are"
        cure = "Take it from a larger picture"
    elif cells < _FEWEST_CELLS:
        trouble = f"fills {share:.1%} of its surroundings; below {share * _FEWEST_CELLS / cells:.1%}, masks are poor"
        cure = "Choose one that shows the object larger or thicker"
    else:
        return
    warnings.warn(
        f"the support's object {trouble}. {cure}, or add further supports of the label.", IirWarning, stacklevel=3
    )


def warn_of_no_background(background: NDArray[np.bool_], label: str) -> None:
    """Warn of a support that nothing is known to be ``background (H, W)`` of."""
    if not background.any():
        warnings.warn(
            "no background is known, so that all of a picture may be taken for the object. Mark some of it, as 0 in "
            f"the mask and in known, or show what it is not, before: add_counterexample(image, label={label!r}).",
            IirWarning,
            stacklevel=3,
        )
