"""EXIF orientation: how a picture's stored pixels are turned to be shown, and which of the two a mask was drawn on."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import IirWarning, ImageError, MaskError
from iir_sdk.pictures.source import opened, size_text

Exif: TypeAlias = Literal["auto", "shown", "stored"]
"""What a mask was drawn on: the picture as viewers show it, its pixels as the file stores them, or whichever fits."""

_ORIENTATION = 0x0112
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Frame:
    """How a picture lies in its file: ``(height, width)`` as shown, and the EXIF orientation, 1 for none."""

    size: tuple[int, int]
    orientation: int = 1

    @property
    def stored_size(self) -> tuple[int, int]:
        """``(height, width)`` before the orientation is applied."""
        return self.size[::-1] if self.orientation > 4 else self.size


def orientation_of(image: Image.Image) -> int:
    """1 to 8; 1 where the tag is missing or makes no sense."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def oriented(image: Image.Image, orientation: int) -> Image.Image:
    """Turned as an orientation asks for."""
    method = _METHODS.get(orientation)
    return image if method is None else image.transpose(method)


def frame_of(path: str | os.PathLike[str]) -> Frame:
    """Of a picture file, from its header."""
    with opened(path, "image", ImageError, page=0) as image:
        orientation = orientation_of(image)
        if image.format == "TIFF":
            # PIL turns TIFFs itself as it loads them; before, its size may be that of either.
            image.load()
            return Frame((image.height, image.width), orientation)
        return Frame((image.width, image.height) if orientation > 4 else (image.height, image.width), orientation)


def check_exif(exif: Exif) -> None:
    """Refuse any other word by a MaskError that names the choices."""
    if exif not in ("auto", "shown", "stored"):
        raise MaskError(f"exif={exif!r} must be 'auto', 'shown' or 'stored'.")


def in_shown_frame(
    labels: NDArray[np.uint8], frame: Frame, *, exif: Exif, what: str, of: str = "its image"
) -> NDArray[np.uint8]:
    """A mask ``(H, W)`` without an orientation of its own, as its picture is shown; a MaskError if it does not fit.

    ``exif`` says what it was drawn on; ``auto`` goes by its size, and where that fits both, is as shown, with a
    warning.
    """
    fits = {"shown": labels.shape == frame.size, "stored": labels.shape == frame.stored_size}
    if not any(fits.values()) or (exif != "auto" and not fits[exif]):
        size = frame.stored_size if exif == "stored" else frame.size
        raise MaskError(
            f"{what} is {size_text(labels.shape)} but {of} is {size_text(size)} (height x width); "
            "resize the mask with nearest-neighbour interpolation to the image's size."
        )
    if frame.orientation == 1 or exif == "shown" or (exif == "auto" and not fits["stored"]):
        return labels
    turned = np.asarray(oriented(Image.fromarray(labels), frame.orientation))
    if exif == "stored" or not fits["shown"]:
        return turned
    if not np.array_equal(turned, labels):
        warnings.warn(
            f"{of} has EXIF orientation {frame.orientation}, and {what} fits it both as shown and as stored. It is "
            "taken as drawn on the picture as shown (exif='shown' says that it was); where a tool that ignores EXIF, "
            "such as cv2 or np.array(Image.open(path)), made it, pass exif='stored'.",
            IirWarning,
            stacklevel=2,
        )
    return labels
