"""The one door for masks, and the one rule of what their numbers mean: background, object, or unknown."""

from __future__ import annotations

import warnings
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import IirWarning, MaskError
from iir_sdk.pictures.load import Picture
from iir_sdk.pictures.mask_levels import UNKNOWN, labels_of_levels, levels_of, refuse_a_photo, shown_labels
from iir_sdk.pictures.mask_values import MaskValues, read_mask_values
from iir_sdk.pictures.orientation import Exif, check_exif, in_shown_frame
from iir_sdk.pictures.source import ImageSource

Value: TypeAlias = "int | tuple[int, ...]"
"""Which number of a mask of several classes is the object; several for several."""

__all__ = ["UNKNOWN", "Value", "load_mask", "load_region", "mask_labels"]


class MaskLabels(NamedTuple):
    """A mask by itself."""

    labels: NDArray[np.uint8]  # ``(H, W)``: 0 background, 1 the object, 255 unknown; of any size, empty or not
    turned: bool  # whether an EXIF orientation of its own was applied, so that it is as shown


def mask_labels(
    source: ImageSource, *, what: str = "mask", value: Value | None = None, page: int | None = None
) -> MaskLabels:
    """Decode a mask by itself, by the rule for masks.

    - One number v beside 0 is the object, whatever it is.
    - 255 beside another number is unknown: neither object nor background.
    - Many grey levels are soft edges: half and above is the object. So is half of the brightest and above in a JPEG, an
      AVIF or a lossy WebP or TIFF, which cannot keep numbers apart.
    - Several numbers are classes, of which ``value`` must name the object's.
    - A palette of greys, or of black and one colour, means what it shows; one of several colours its indices.
    - Shades of one colour on black are its object's soft edges; several colours are classes, and an error.
    - A picture with transparency is a cut-out: what is visible is the object, unless flat colours tell classes apart.

    Raises:
        PictureNotFoundError: the path does not exist.
        MaskError: not a mask, or one that may mean several things; the message names the cure.
    """
    read = read_mask_values(source, what, page)
    labels = _labels_of(read, what) if value is None else _labels_of_value(read, value, what)
    return MaskLabels(labels, read.turned)


def load_mask(
    source: ImageSource,
    picture: Picture,
    *,
    value: Value | None = None,
    known: ImageSource | None = None,
    exif: Exif = "auto",
    page: int | None = None,
) -> NDArray[np.uint8]:
    """Read the mask of a picture by the rule of :func:`mask_labels`.

    A file's own EXIF orientation is applied. One without is told by its size to be drawn on the picture as shown or on
    its pixels as stored; where it fits both, it is taken as shown, with a warning.

    Args:
        source: a path, a file's bytes, an open binary file, a PIL image, an array or a tensor ``(H, W)``.
        picture: the picture it belongs to.
        value: which number is the object, where the mask holds several classes.
        known: where the mask says anything, marked as an object is; the rest is unknown. None for all that is not 255.
        exif: what it was drawn on, the picture as ``shown`` or as ``stored``; ``auto`` as said above.
        page: which one of a file of several pages; a file of one serves for all.

    Returns:
        ``(H, W)`` uint8 at the picture's size: 0 background, 1 the object, 255 unknown; some of both of the former,
        but for a mask with ``known``, which need not hold background.

    Raises:
        PictureNotFoundError: the path does not exist.
        MaskError: wrong size, empty, all foreground, not a mask, or its object is not all ``known``.
    """
    labels = _in_frame_of(picture, source, "mask", value, exif, page)
    if not (labels == 1).any():
        raise MaskError(
            "mask is empty: no pixel is nonzero (of soft edges or a lossy file: half the scale or more). "
            "Mark the object with any nonzero value, and save as PNG."
        )
    if known is not None:
        labels = _where_known(labels, load_region(known, picture, what="known", exif=exif, page=page))
    elif not (labels == 0).any():
        unknown = (labels == UNKNOWN).any()
        raise MaskError(
            "mask covers the whole image, so nothing tells the object from its background. "
            "Mark the object only, and set background to 0: 255 beside another value is unknown, not background."
            + (" Where no background is known, say so: known=np.array(mask) != 255." if unknown else "")
        )
    if all((side == 1).all() for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1])):
        warnings.warn(
            "mask marks every pixel of the image's border as object. Is it inverted? Then pass np.array(mask) == 0; "
            "of a file, np.array(Image.open(path)) == 0.",
            IirWarning,
            stacklevel=2,
        )
    return labels


def _where_known(labels: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    outside = int(((labels == 1) & ~known).sum())
    if outside:
        raise MaskError(
            f"known leaves out {outside} of the object's {int((labels == 1).sum())} pixels, and what a mask marks is "
            "known, too. Pass known | (mask > 0), both as arrays."
        )
    return np.where(known, labels, np.uint8(UNKNOWN))


def load_region(
    source: ImageSource,
    picture: Picture,
    *,
    what: str = "region",
    value: Value | None = None,
    exif: Exif = "auto",
    page: int | None = None,
) -> NDArray[np.bool_]:
    """Read which part of a picture is marked, by the rule of :func:`mask_labels`; all of it may be.

    Args:
        source: see :func:`load_mask`; likewise ``picture``, ``value``, ``exif`` and ``page``.
        what: its name in messages.

    Returns:
        ``(H, W)`` bool at the picture's size, some of it True; what is unknown is not.

    Raises:
        PictureNotFoundError: the path does not exist.
        MaskError: wrong size, empty, or not a mask.
    """
    marked: NDArray[np.bool_] = _in_frame_of(picture, source, what, value, exif, page) == 1
    if not marked.any():
        raise MaskError(f"{what} is empty: no pixel is nonzero. Mark it with any nonzero value, and save as PNG.")
    return marked


def _in_frame_of(
    picture: Picture, source: ImageSource, what: str, value: Value | None, exif: Exif, page: int | None
) -> NDArray[np.uint8]:
    """Labels 0, 1 and 255 of a mask as its picture is shown."""
    check_exif(exif)
    mask = mask_labels(source, what=what, value=value, page=page)
    return in_shown_frame(mask.labels, picture.frame, exif="shown" if mask.turned else exif, what=what)


def _labels_of(read: MaskValues, what: str) -> NDArray[np.uint8]:
    if read.soft and read.shown is not None:
        refuse_a_photo(read.shown, levels_of(read.shown), what)
        return (read.shown >= 128).astype(np.uint8)
    shown = None if read.shown is None else shown_labels(read.shown, what)
    if shown is not None:
        return shown
    if read.of:
        raise MaskError(f"{what} {read.of}. Which is the object? Name its index: value={int(read.values.max())}.")
    return labels_of_levels(read.values, what)


def _labels_of_value(read: MaskValues, value: Value, what: str) -> NDArray[np.uint8]:
    wanted = value if isinstance(value, (tuple, list)) else (value,)
    if not wanted or any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) for v in wanted):
        raise MaskError(f"value={value!r} must be an integer, or several as in value=(3, 5).")
    if read.shown is not None and read.of:
        raise MaskError(f"value={value!r}: {what} {read.of}, which keeps no numbers apart; save a grey PNG of them.")
    values = read.values
    labels = np.isin(values, wanted).astype(np.uint8)
    if not labels.any():
        raise MaskError(f"value={value!r}: {what} has no such pixel; it holds {levels_of(values).text}.")
    if UNKNOWN not in wanted and values.dtype != np.bool_:
        labels[values == UNKNOWN] = UNKNOWN
    return labels
