"""Arrays and tensors as RGB pixels, where it is beyond doubt what they hold; else an error with a cure that works."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import ImageError
from iir_sdk.pictures.source import MAX_PIXELS, size_text

MIN_SIDE = 8
"""Shortest side of a picture, in pixels."""
MAX_ASPECT = 50
"""Largest ratio of the long to the short side."""

EXPECTED = "a uint8 array (H, W, 3) or a float tensor (3, H, W) in [0, 1], RGB"
_SLACK = 1e-3


def check_size(size: tuple[int, int], what: str, cure: str) -> None:
    """Refuse a picture that is too small, too large or too long by an ImageError; ``cure`` says how to shrink it."""
    short, long = min(size), max(size)
    if short < MIN_SIDE:
        raise ImageError(f"{what} is {size_text(size)}; each side must have at least {MIN_SIDE} pixels.")
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(f"{what} is {size_text(size)}, more than {MAX_PIXELS:,} pixels. {cure}")
    if long > MAX_ASPECT * short:
        raise ImageError(
            f"{what} is {size_text(size)}, longer than {MAX_ASPECT} times its short side; cut it into tiles."
        )


def rgb_of_array(array: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """Checked ``(H, W, 3)`` uint8, a copy: the caller may reuse the array while the result still shows it."""
    named = f"{what} is an array {array.shape} {array.dtype}"
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ImageError(f"{named} with masked values; fill them: a.filled(0).")
    pixels = _channels_last(np.asarray(array), named)
    check_size((pixels.shape[0], pixels.shape[1]), what, "Cut it into tiles or shrink it, as with a[::2, ::2].")
    if pixels.dtype.kind == "f":
        pixels = _bytes_of_floats(pixels.astype(np.float32), named, "np.nan_to_num(a, posinf=0, neginf=0)")
    elif pixels.dtype != np.uint8:
        raise ImageError(f"{named}; expected {EXPECTED}.{_dtype_cure(pixels)}")
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def rgb_of_tensor(tensor: Any, what: str) -> NDArray[np.uint8]:
    """As :func:`rgb_of_array`, of a float tensor in [0, 1] or a uint8 one, on any device."""
    named = f"{what} is a {tensor.device.type} tensor {tuple(tensor.shape)} {tensor.dtype}"
    if not holds_values(tensor):
        raise ImageError(f"{named}, {tensor.layout}, which holds no plain values; expected {EXPECTED}.")
    if tensor.is_complex() or (tensor.dtype.is_floating_point is False and str(tensor.dtype) != "torch.uint8"):
        cure = "" if tensor.is_complex() else " Values in 0..255 become one with .to(torch.uint8)."
        raise ImageError(f"{named}; expected {EXPECTED}.{cure}")
    view = _channels_last(tensor.detach(), named)
    check_size((view.shape[0], view.shape[1]), what, "Cut it into tiles or shrink it, as with t[:, ::2, ::2].")
    if tensor.is_floating_point():
        view = _bytes_of_floats(view.float().cpu().numpy(), named, "torch.nan_to_num(t, posinf=0, neginf=0)")
    else:
        view = view.cpu().numpy()
    return np.array(np.broadcast_to(view, (*view.shape[:2], 3)), order="C")


def holds_values(tensor: Any) -> bool:
    """Whether a tensor is dense and on a real device."""
    return not tensor.is_meta and str(tensor.layout) == "torch.strided"


def _channels_last(maps: Any, named: str) -> Any:
    """``(H, W)``, and one or three channels that lie first or last, as ``(H, W, C)``."""
    shape = tuple(maps.shape)
    if len(shape) == 2:
        return maps[..., None]
    if len(shape) == 4:
        cure = "pass its pictures to predict_many, or one of them, a[0]" if shape[0] != 1 else "pass its picture, a[0]"
        raise ImageError(f"{named}: a batch of {'one' if shape[0] == 1 else shape[0]}; {cure}.")
    if len(shape) != 3:
        raise ImageError(f"{named}; expected {EXPECTED}.")
    # Where both axes are that short, one of them is a side, and the picture too small either way.
    if shape[2] in (1, 3):
        return maps
    if shape[0] in (1, 3):
        return np.moveaxis(maps, 0, 2) if isinstance(maps, np.ndarray) else maps.permute(1, 2, 0)
    cure = "Take three of its channels."
    if 4 in (shape[0], shape[2]):
        cure = f"Drop the fourth channel (alpha, infrared): {'a[:3]' if shape[0] == 4 else 'a[..., :3]'}."
    raise ImageError(f"{named}; expected {EXPECTED}. {cure}")


def _bytes_of_floats(values: NDArray[np.float32], named: str, filled: str) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise ImageError(f"{named} with NaN or infinite values; replace them: {filled}.")
    low, high = float(values.min()), float(values.max())
    if low < -_SLACK:
        raise ImageError(
            f"{named} with values in [{low:.4g}, {high:.4g}]; expected [0, 1]. It looks normalised (minus a mean): "
            "pass it as it was before that."
        )
    if high > 1 + _SLACK:
        cure = "divide by 255" if high <= 255.5 else "divide by its greatest value"
        raise ImageError(f"{named} with values in [{low:.4g}, {high:.4g}]; expected [0, 1]: {cure}.")
    return np.asarray(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _dtype_cure(pixels: NDArray[Any]) -> str:
    if pixels.dtype == np.bool_:
        return " Black and white become uint8 with np.uint8(a) * 255."
    if pixels.dtype.kind not in "ui":
        return " Numbers in 0..255 become uint8 with a.astype(np.uint8)."
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0:
        return f" It holds values in [{low}, {high}]; make 0 the darkest: a - a.min(), then scale it to uint8."
    if high <= 255:
        return " Its values are in 0..255 and become uint8 with a.astype(np.uint8)."
    return " Its values become uint8 with (a / a.max() * 255).astype(np.uint8)."
