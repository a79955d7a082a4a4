"""The one door for pictures: whatever a user holds becomes checked RGB pixels, or an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import IirError, ImageError, is_memory_shortage, memory_shortage
from iir_sdk.pictures.arrays import EXPECTED, check_size, rgb_of_array, rgb_of_tensor
from iir_sdk.pictures.deep import deep_values, low_bytes, nodata_of, stretched
from iir_sdk.pictures.orientation import Frame, orientation_of, oriented
from iir_sdk.pictures.source import ImageSource, is_file_source, is_tensor, opened, too_large_cure

_WITH_ALPHA = ("LA", "PA", "RGBA", "RGBa", "La")


@dataclass(frozen=True)
class Picture:
    """A checked picture, and the EXIF orientation that was applied, 1 for none."""

    pixels: NDArray[np.uint8]  # ``(H, W, 3)`` RGB, EXIF orientation applied
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return (self.pixels.shape[0], self.pixels.shape[1])

    @property
    def frame(self) -> Frame:
        """How it lies in its file."""
        return Frame(self.size, self.orientation)


def load_picture(source: ImageSource, *, what: str = "image", page: int | None = None) -> Picture:
    """Read a picture from any of the accepted kinds.

    Args:
        source: a path, a file's bytes, an open binary file, a PIL image, a uint8 array ``(H, W, 3)``, or a float tensor
            ``(3, H, W)`` in [0, 1]. RGB. Grey ones, floats in arrays and channels on the other side do as well.
        what: its name in error messages.
        page: which one of a file of several pages or frames; None is the first, with a warning, and of a PIL image the
            one it is at.

    Raises:
        PictureNotFoundError: the path does not exist.
        MemoryShortageError: there is too little memory for it.
        ImageError: anything else that keeps it from being used.
    """
    try:
        return _loaded(source, what, page)
    except Exception as error:
        if isinstance(error, IirError) or not is_memory_shortage(error):
            raise
        raise memory_shortage(what, error) from error


def _loaded(source: ImageSource, what: str, page: int | None) -> Picture:
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image) or is_file_source(source):
        with opened(source, what, ImageError, page) as image:
            return _from_pil(image, what)
    if page is not None:
        raise ImageError(f"page={page!r}: {what} is a {type(source).__name__}, which has no pages.")
    if isinstance(source, np.ndarray):
        return Picture(rgb_of_array(source, what))
    if is_tensor(source):
        return Picture(rgb_of_tensor(source, what))
    cure = " Of numbers make an array: np.array(picture, np.uint8)." if isinstance(source, (list, tuple)) else ""
    raise ImageError(
        f"{what} is a {type(source).__name__}; expected a path, a file's bytes, an open binary file, a PIL image, "
        f"{EXPECTED}.{cure}"
    )


def _from_pil(image: Image.Image, what: str) -> Picture:
    check_size((image.height, image.width), what, too_large_cure(ImageError))
    low = low_bytes(image, what)
    orientation, nodata = orientation_of(image), nodata_of(image)
    image.load()
    deep = deep_values(image, low)
    shown = _rgb(image, None if deep is None else stretched(deep, nodata))
    # PIL turns TIFFs itself as it loads them, and drops the tag.
    return Picture(np.array(oriented(shown, orientation_of(image))), orientation)


def _rgb(image: Image.Image, stretched_pixels: NDArray[np.uint8] | None) -> Image.Image:
    """RGB, transparency shown on white."""
    picture = image if stretched_pixels is None else Image.fromarray(stretched_pixels).convert("RGB")
    if "transparency" not in image.info and image.mode not in _WITH_ALPHA:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    if stretched_pixels is not None and image.mode in _WITH_ALPHA:
        rgba.putalpha(image.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
