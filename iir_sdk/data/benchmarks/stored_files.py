"""What the benchmarks' distributions are made of: lists, pictures, masks, class numbers as colours, MATLAB's files."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.data.dataset import IGNORE
from iir_sdk.errors import DatasetError, DatasetNotFoundError, needed_imports, telling_of_memory
from iir_sdk.pictures.load import load_picture

Colour = tuple[int, int, int]
"""Red, green and blue, each on (1) or off (0)."""


def require(path: Path, what: str, *, folder: bool = False) -> Path:
    """A file or folder of an official distribution; of a missing one, a DatasetNotFoundError says what to put there."""
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise DatasetNotFoundError(f"{kind} {path} is missing: put {what} there.")
    return path


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """Lines of a list file that are not empty; raises as :func:`require` does."""
    return tuple(line.strip() for line in require(path, what).read_text(encoding="utf-8").splitlines() if line.strip())


def read_picture(path: Path, what: str) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 RGB of a picture; raises as :func:`require` does."""
    return load_picture(require(path, what), what=str(path)).pixels


def picture_in(folder: Path, suffix: str, what: str, key: str) -> NDArray[np.uint8]:
    """As :func:`read_picture`, of a key in a folder."""
    return read_picture(folder / f"{key}{suffix}", what)


def read_white_mask(path: Path, what: str) -> NDArray[np.uint8]:
    """``(H, W)`` uint8, 0 and 1, of a mask that is a picture, white on black, perhaps with soft edges."""
    return (stored_pixels(path, what, "L") >= 128).astype(np.uint8)


def stored_pixels(path: Path, what: str, mode: str | None = None) -> NDArray[np.uint8]:
    """``(H, W)`` or ``(H, W, C)`` uint8 as a file of labels holds them, a palette's as indices, or converted."""
    require(path, what)
    try:
        with telling_of_memory(str(path)), Image.open(path) as picture:
            return np.array(picture.convert(mode) if mode else picture, np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as a picture ({error}); fetch it again.") from error


def mask_of(labels: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers with 255 for ignore -> the mask of one class: 0, 1, 255."""
    mask: NDArray[np.uint8] = (labels == value).astype(np.uint8)
    mask[labels == IGNORE] = IGNORE
    return mask


def read_colour_labels(path: Path, what: str, colours: Mapping[str, Colour]) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers, 1 for the first colour; 0 for colours that are none of them."""
    on = stored_pixels(path, what, "RGB") >= 128
    code = on[..., 0] * 4 + on[..., 1] * 2 + on[..., 2]
    table = np.zeros(8, np.uint8)
    for i, (red, green, blue) in enumerate(colours.values()):
        table[red * 4 + green * 2 + blue] = i + 1
    labels: NDArray[np.uint8] = table[code]
    return labels


def read_matlab(path: Path, what: str) -> dict[str, Any]:
    """A file's variables by name, structures with attributes; a DatasetError where it cannot be read."""
    with needed_imports(f"{path} is a MATLAB file; run: pip install 'iir-sdk[data]'"):
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    require(path, what)
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True, struct_as_record=False)
    except (MatReadError, OSError, ValueError, TypeError, NotImplementedError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read as a MATLAB file ({error}); fetch it again.") from error
    return content
