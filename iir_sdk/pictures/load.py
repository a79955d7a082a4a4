"""The one door for pictures and masks: whatever a user holds becomes checked RGB or boolean pixels, or an error."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from iir_sdk.errors import ImageError, MaskError, PictureNotFoundError
from iir_sdk.pictures.lossy import is_lossy

if TYPE_CHECKING:
    from torch import Tensor

    ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
else:
    ImageSource: TypeAlias = Any

MIN_SIDE = 8
"""Shortest side of a picture, in pixels."""
MAX_PIXELS = 80_000_000
"""Largest picture, in pixels (about 9,000 x 9,000)."""
MAX_ASPECT = 50
"""Largest ratio of the long to the short side."""

_ORIENTATION = 0x0112
# What PIL's readers raise on damaged files, as fuzzing found and their sources show.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # an error under -W error
)


@dataclass(frozen=True)
class Picture:
    """A checked picture.

    Attributes:
        pixels: uint8 ``(H, W, 3)`` RGB, EXIF orientation applied.
        orientation: EXIF orientation that was applied, 1 for none.
        stored_size: ``(height, width)`` before the orientation was applied.
    """

    pixels: NDArray[np.uint8]
    orientation: int = 1
    stored_size: tuple[int, int] = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return (self.pixels.shape[0], self.pixels.shape[1])


def load_picture(source: ImageSource, *, what: str = "image") -> Picture:
    """Read a picture from any of the accepted kinds.

    Args:
        source: a path, a PIL image, a uint8 array ``(H, W, 3)``, or a float tensor ``(3, H, W)`` in [0, 1]. RGB.
        what: its name in error messages.

    Raises:
        PictureNotFoundError: the path does not exist.
        ImageError: anything else that keeps it from being used.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, os.PathLike)):
        with _open(source, what, ImageError) as image:
            return _from_pil(image, what)
    if isinstance(source, Image.Image):
        return _from_pil(source, what)
    if isinstance(source, np.ndarray):
        return _checked(_rgb_array(source, what), what)
    if _is_tensor(source):
        return _checked(_tensor_to_rgb(source, what), what)
    raise ImageError(
        f"{what} is a {type(source).__name__}; expected a path, a PIL image, a uint8 array (H, W, 3) "
        "or a float tensor (3, H, W) in [0, 1]."
    )


def load_mask(source: ImageSource, picture: Picture, *, what: str = "mask") -> NDArray[np.bool_]:
    """Read the mask of a picture: nonzero is foreground, palette files are read as indices.

    A file's own EXIF orientation is applied. A mask without one that has the picture's size as stored, and not as
    shown, was drawn on the stored pixels: it is turned as the picture was.

    Args:
        source: a path, a PIL image, an array or a tensor ``(H, W)``, ``(1, H, W)`` or ``(H, W, 1)`` of any dtype.
        picture: the picture it belongs to.
        what: its name in error messages.

    Returns:
        Boolean ``(H, W)`` at the picture's size.

    Raises:
        PictureNotFoundError: the path does not exist.
        MaskError: wrong size, empty, all foreground, or not a mask.
    """
    mask = mask_pixels(source, what=what)
    if mask.shape != picture.size and mask.shape == picture.stored_size:
        mask = np.asarray(_oriented(Image.fromarray(mask.astype(np.uint8)), picture.orientation)) > 0
    if mask.shape != picture.size:
        raise MaskError(
            f"{what} is {_size_text(mask.shape)} but its image is {_size_text(picture.size)} (height x width); "
            "resize the mask with nearest-neighbour interpolation to the image's size."
        )
    if not mask.any():
        raise MaskError(
            f"{what} is empty: no pixel is nonzero (in a JPEG or another lossy file: 128 or more). "
            "Mark the object with any nonzero value, and save as PNG."
        )
    if mask.all():
        raise MaskError(
            f"{what} covers the whole image, so nothing tells the object from its background. "
            "Mark the object only; if the values are 1 and 2 or 255 for background, set background to 0."
        )
    return mask


def shown_size(path: str | os.PathLike[str], *, what: str = "image") -> tuple[int, int]:
    """``(height, width)`` of a picture file with its EXIF orientation applied, from its header.

    Raises:
        PictureNotFoundError: the path does not exist.
        ImageError: it is no picture.
    """
    with _open(path, what, ImageError) as image:
        try:
            if image.format == "TIFF":
                image.load()
            turned = _orientation_of(image) > 4
        except _BROKEN as error:
            raise ImageError(f"{what} cannot be decoded ({error}); the file is damaged, save it again.") from error
        return (image.width, image.height) if turned else (image.height, image.width)


def _from_pil(image: Image.Image, what: str) -> Picture:
    _check_size((image.height, image.width), what)
    try:
        orientation = _orientation_of(image)
        image.load()
        # PIL turns TIFFs itself as it loads them, and drops the tag.
        pixels = np.array(_to_rgb(_oriented(image, _orientation_of(image))))
        shown = (pixels.shape[0], pixels.shape[1])
        stored = shown[::-1] if orientation > 4 else shown
    except _BROKEN as error:
        raise ImageError(f"{what} cannot be decoded ({error}); the file is damaged, save it again.") from error
    return Picture(pixels, orientation, stored)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # PIL clips 16- and 32-bit greys at 255, which whitens the picture; stretch them to what they hold.
        grey = np.asarray(image, dtype=np.float64)
        grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
        spread = max(float(grey.max() - grey.min()), 1e-12)
        image = Image.fromarray(np.uint8((grey - grey.min()) / spread * 255))
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "RGBa", "La"):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _open(path: str | os.PathLike[str], what: str, kind: type[ImageError] | type[MaskError]) -> Image.Image:
    try:
        exists = Path(path).is_file()
    except (ValueError, OSError) as error:
        raise PictureNotFoundError(f"{what}: {path!r} is not a path ({error}).") from error
    if not exists:
        raise PictureNotFoundError(f"{what}: no file at {os.fspath(path)!r}.")
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise kind(f"{what}: {os.fspath(path)!r} is not a picture that PIL can read (PNG, JPEG, ...).") from error
    except _BROKEN as error:
        raise kind(f"{what}: {os.fspath(path)!r} cannot be read ({error}).") from error


def _orientation_of(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _oriented(image: Image.Image, orientation: int) -> Image.Image:
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def _rgb_array(array: NDArray[Any], what: str) -> NDArray[np.uint8]:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        hint = ""
        if array.ndim == 2:
            hint = " A grey picture becomes RGB with np.stack([a] * 3, axis=2)."
        elif array.ndim == 3 and array.shape[2] == 4:
            hint = " Drop the alpha channel with a[..., :3]."
        elif array.dtype != np.uint8:
            hint = " Floats in [0, 1] become uint8 with (a * 255).round().astype(np.uint8)."
        raise ImageError(f"{what} is an array {array.shape} {array.dtype}; expected (H, W, 3) uint8 RGB.{hint}")
    # A copy: the caller may reuse its buffer while the result still shows the picture.
    return np.array(array, order="C")


def _tensor_to_rgb(tensor: Any, what: str) -> NDArray[np.uint8]:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.is_floating_point() or not _holds_values(tensor):
        hint = " A uint8 tensor becomes one with .float() / 255." if str(tensor.dtype) == "torch.uint8" else ""
        raise ImageError(
            f"{what} is a {tensor.device.type} tensor {tuple(tensor.shape)} {tensor.dtype}, {tensor.layout}; "
            f"expected (3, H, W) float in [0, 1], RGB.{hint}"
        )
    _check_size((tensor.shape[1], tensor.shape[2]), what)
    values = tensor.detach().float().cpu()
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ImageError(
            f"{what} has values in [{low:.4g}, {high:.4g}]; expected [0, 1]: divide by 255, and do not normalise."
        )
    rgb: NDArray[np.uint8] = (values.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return rgb


def _checked(pixels: NDArray[np.uint8], what: str) -> Picture:
    size = (pixels.shape[0], pixels.shape[1])
    _check_size(size, what)
    return Picture(pixels, 1, size)


def _check_size(size: tuple[int, int], what: str) -> None:
    short, long = min(size), max(size)
    if short < MIN_SIDE:
        raise ImageError(f"{what} is {_size_text(size)}; each side must have at least {MIN_SIDE} pixels.")
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{what} is {_size_text(size)}, more than {MAX_PIXELS:,} pixels; cut it into tiles or shrink it."
        )
    if long > MAX_ASPECT * short:
        raise ImageError(
            f"{what} is {_size_text(size)}, longer than {MAX_ASPECT} times its short side; cut it into tiles."
        )


def mask_pixels(source: ImageSource, *, what: str = "mask") -> NDArray[np.bool_]:
    """Decode a mask by itself: ``(H, W)`` bool, its own EXIF orientation applied, of any size, empty or not.

    Raises:
        PictureNotFoundError: the path does not exist.
        MaskError: not a mask.
    """
    return np.asarray(mask_values(source, what=what) != 0, dtype=np.bool_)


def mask_values(source: ImageSource, *, what: str = "mask") -> NDArray[Any]:
    """As :func:`mask_pixels`, but the ``(H, W)`` numbers that the mask holds, finite.

    A palette's are its indices; of a JPEG, an AVIF or a lossy WebP or TIFF, which cannot keep numbers apart, whether
    its alpha, or where that tells nothing its brightest channel, is 128 or more.
    """
    if isinstance(source, (str, os.PathLike)):
        with _open(source, what, MaskError) as image:
            values = _pil_mask_values(image, what)
    elif isinstance(source, Image.Image):
        values = _pil_mask_values(source, what)
    elif isinstance(source, np.ndarray):
        values = source
    elif _is_tensor(source):
        tensor: Any = source
        if not _holds_values(tensor):
            raise MaskError(f"{what} is a sparse tensor, or one on device 'meta'; expected one that holds its values.")
        values = tensor.detach().float().cpu().numpy()
    else:
        raise MaskError(
            f"{what} is a {type(source).__name__}; expected a path, a PIL image, an array or a tensor (H, W)."
        )
    if values.dtype.kind not in "biuf":
        raise MaskError(f"{what} holds {values.dtype} values; expected booleans or numbers.")
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = np.asarray(values[0] if values.shape[0] == 1 else values[..., 0])
    if values.ndim != 2:
        raise MaskError(f"{what} has shape {values.shape}; expected (H, W), one value a pixel.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise MaskError(f"{what} holds NaN or infinite values; expected 0 for background and nonzero for the object.")
    return values


def _pil_mask_values(image: Image.Image, what: str) -> NDArray[Any]:
    if image.width * image.height > MAX_PIXELS:
        raise MaskError(f"{what} is {_size_text((image.height, image.width))}, more than {MAX_PIXELS:,} pixels.")
    try:
        # Lossy files blur a mask's edges and dirty its ground, so there nonzero would be too much.
        least = 128 if is_lossy(image) else 1
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            return _mask_of_alpha(image, least)
        if least == 1 and (image.mode in ("1", "L", "P", "F") or image.mode.startswith("I")):
            return np.asarray(image)
        return np.asarray(np.asarray(image.convert("RGB")).max(axis=2) >= least)
    except _BROKEN as error:
        raise MaskError(f"{what} cannot be decoded ({error}); the file is damaged, save it again.") from error


def _mask_of_alpha(image: Image.Image, least: int) -> NDArray[np.bool_]:
    """A mask drawn in a picture editor: visible (alpha of at least ``least``) and not black."""
    rgba = np.asarray(image.convert("RGBA"))
    visible = np.asarray(rgba[..., 3] >= least)
    # A cut-out with a transparent background marks its object by alpha alone, black parts included.
    return visible if not visible.all() else np.asarray(rgba[..., :3].max(axis=2) >= least)


def _holds_values(tensor: Any) -> bool:
    return not tensor.is_meta and str(tensor.layout) == "torch.strided"


def _is_tensor(source: object) -> bool:
    # By name, so that numpy and PIL users never import torch here.
    return any(c.__module__ == "torch" and c.__name__ == "Tensor" for c in type(source).__mro__)


def _size_text(size: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in size)
