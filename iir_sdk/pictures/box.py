"""A box around an object, as detectors and people give it, in a picture's pixels."""

from __future__ import annotations

import math
import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import IirWarning, MaskError
from iir_sdk.pictures.load import Picture
from iir_sdk.pictures.orientation import Exif, check_exif, in_shown_frame
from iir_sdk.pictures.source import size_text

Box: TypeAlias = "tuple[float, float, float, float]"
"""``(x0, y0, x1, y1)`` in pixels, half-open: ``mask[y0:y1, x0:x1]``. Fractions grow to whole pixels."""


def load_box(box: Box, picture: Picture, *, exif: Exif = "auto") -> NDArray[np.bool_]:
    """The box of a picture as a mask ``(H, W)``, as the picture is shown.

    Args:
        box: see :data:`Box`.
        picture: the picture.
        exif: whether it was drawn on the picture as ``shown`` or as ``stored``; ``auto`` takes it as shown, with a
            warning where the picture has an EXIF orientation.

    Raises:
        MaskError: no box, not inside the picture, or all of it.
    """
    check_exif(exif)
    size = picture.frame.stored_size if exif == "stored" else picture.frame.size
    x0, y0, x1, y1 = _inside(box, size)
    mask = np.zeros(size, np.uint8)
    mask[y0:y1, x0:x1] = 1
    if mask.all():
        raise MaskError(
            f"box={_shown(box)} covers the whole image, so nothing tells the object from its background. "
            "Draw it around the object only."
        )
    if exif == "auto" and picture.frame.orientation != 1:
        warnings.warn(
            f"the image has EXIF orientation {picture.frame.orientation}; the box is taken as drawn on it as shown "
            "(exif='shown' says that it was). For a box in the pixels as stored pass exif='stored'.",
            IirWarning,
            stacklevel=3,
        )
    shown = in_shown_frame(mask, picture.frame, exif="stored" if exif == "stored" else "shown", what="box")
    return np.asarray(shown == 1)


def plain_box(box: Any) -> Box:
    """Four numbers as floats, of a tuple, a list, an array or a tensor.

    Raises:
        MaskError: something else.
    """
    try:
        corners = np.asarray(box, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MaskError(f"box={box!r:.100} must be four numbers (x0, y0, x1, y1).") from error
    if corners.shape != (4,) or not np.isfinite(corners).all():
        raise MaskError(f"box={box!r:.100} must be four finite numbers (x0, y0, x1, y1); pass one box at a time.")
    x0, y0, x1, y1 = corners.tolist()
    return x0, y0, x1, y1


def _inside(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels, inside a picture of ``size`` (height, width)."""
    x0, y0, x1, y1 = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    height, width = size
    if max(box) <= 1 and any(edge % 1 for edge in box):
        raise MaskError(
            f"box={_shown(box)} looks like shares of the sides; pass pixels: (x0 * {width}, y0 * {height}, "
            f"x1 * {width}, y1 * {height})."
        )
    if x1 <= x0 or y1 <= y0:
        cure = f"box=({x0}, {y0}, {x0 + x1}, {y0 + y1})" if x1 > 0 and y1 > 0 else "the lesser of each first"
        raise MaskError(
            f"box={_shown(box)} holds no pixel: x1 must exceed x0, and y1 y0. Of (x, y, width, height) pass "
            f"(x, y, x + width, y + height): {cure}."
        )
    inside = (max(0, x0), max(0, y0), min(width, x1), min(height, y1))
    if inside != (x0, y0, x1, y1):
        apart = inside[2] <= inside[0] or inside[3] <= inside[1]
        cure = "none of it is inside" if apart else f"cut it: box={inside}"
        raise MaskError(
            f"box={_shown(box)} reaches out of its image, which is {size_text(size)} (height x width); {cure}."
        )
    return x0, y0, x1, y1


def _shown(box: Box) -> str:
    return f"({', '.join(f'{edge:g}' for edge in box)})"
