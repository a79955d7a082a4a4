"""Masks that say the class by colour, in which every channel is either on or off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.dataset import Selection, stored_pixels
from iir_sdk.errors import DatasetError

Colour = tuple[int, int, int]


def read_colour_labels(path: Path, what: str, colours: Mapping[str, Colour]) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers, 1 for the first colour; 0 for colours that are none of them.

    Raises:
        DatasetNotFoundError: the file is missing.
        DatasetError: it is no picture, or damaged.
    """
    on = stored_pixels(path, what, "RGB") >= 128
    code = on[..., 0] * 4 + on[..., 1] * 2 + on[..., 2]
    table = np.zeros(8, np.uint8)
    for i, (red, green, blue) in enumerate(colours.values()):
        table[red * 4 + green * 2 + blue] = i + 1
    labels: NDArray[np.uint8] = table[code]
    return labels


def only_for_tests(selection: Selection, name: str) -> None:
    """Refuse to train on a cross-domain benchmark.

    Raises:
        DatasetError: a training split was asked for.
    """
    selection.check_fold(1)
    if selection.split == "train":
        raise DatasetError(f"{name} is a cross-domain benchmark: it is tested on, not trained on; use split='test'.")
