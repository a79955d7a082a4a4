"""What the numbers of a mask mean: how many levels it has, whether they are soft edges or classes, or a photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import MaskError

UNKNOWN = 255
"""Label of pixels that count nowhere."""

_ROWS = 512
"""Most rows that are looked at to tell photos and soft edges."""
_NAMED = 8


@dataclass(frozen=True)
class Levels:
    """The distinct numbers of a mask, ascending."""

    numbers: NDArray[Any]

    @property
    def whole(self) -> bool:
        """Whether all are integers."""
        return self.numbers.dtype.kind in "biu" or bool((self.numbers == np.floor(self.numbers)).all())

    @property
    def top(self) -> float:
        """What stands for fully the object: 1 or 255, or the greatest number above that."""
        greatest = float(self.numbers[-1])
        return 1.0 if greatest <= 1 else max(255.0, greatest)

    @property
    def text(self) -> str:
        """As ``0, 3 and 5``."""
        shown = [f"{n:.4g}" if self.numbers.dtype.kind == "f" else str(n) for n in self.numbers[:_NAMED].tolist()]
        if len(self.numbers) > _NAMED:
            return f"{', '.join(shown)}, ... ({len(self.numbers)} different values)"
        return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def levels_of(values: NDArray[Any]) -> Levels:
    """Of ``(H, W)`` numbers."""
    if values.size and values.dtype.kind in "ui" and values.min() >= 0 and values.max() <= 255:
        # Counting is forty times faster than sorting.
        counts = Image.fromarray(np.ascontiguousarray(values, np.uint8)).histogram()
        return Levels(np.flatnonzero(counts).astype(values.dtype))
    return Levels(np.unique(values))


def labels_of_levels(values: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """``(H, W)`` numbers as labels 0, 1, 255; a MaskError for several classes, negative numbers, or a photo."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    levels = levels_of(values)
    objects = levels.numbers[levels.numbers != 0]
    if len(levels.numbers) and levels.numbers[0] < 0:
        cure = "Of logits pass mask > 0, of a resized map of probabilities mask > 0.5."
        if levels.whole:
            cure = f"Of logits pass mask > 0; of classes name the object's: value={int(objects[-1])}."
        raise MaskError(f"{what} holds negative values: {levels.text}. {cure}")
    if len(objects) <= 1:
        return np.asarray(values != 0, np.uint8)
    refuse_a_photo(values, levels, what)
    if not levels.whole or _are_soft(values, levels):
        return np.asarray(values >= levels.top / 2, np.uint8)
    if len(objects) == 2 and objects[1] == UNKNOWN:
        return _beside_unknown(values, int(objects[0]), what)
    if len(levels.numbers) == 2 and levels.numbers[0] < 64 and 192 <= levels.numbers[1] < UNKNOWN:
        # Black and white, nearly, as quantising leaves them.
        return np.asarray(values >= 128, np.uint8)
    classes = [int(n) for n in objects.tolist() if n != UNKNOWN]
    pair = f", or several: value=({classes[0]}, {classes[1]})" if len(classes) > 1 else ""
    raise MaskError(
        f"{what} holds several values: {levels.text}. If they are classes, name the object's: "
        f"value={classes[-1]}{pair}; if all of them are the object, pass mask > 0."
    )


def shown_labels(brightness: NDArray[np.uint8], what: str) -> NDArray[np.uint8] | None:
    """Labels of what a viewer shows, where that is black and white or has soft edges; None where it is neither."""
    levels = levels_of(brightness)
    refuse_a_photo(brightness, levels, what)
    numbers = levels.numbers
    if len(numbers) <= 2 and numbers[0] == 0:
        return np.asarray(brightness != 0, np.uint8)
    if (len(numbers) == 2 and numbers[0] < 64 and numbers[1] >= 192) or _are_soft(brightness, levels):
        return np.asarray(brightness >= 128, np.uint8)
    return None


def refuse_a_photo(values: NDArray[Any], levels: Levels, what: str) -> None:
    """Refuse grey levels that go up and down all over, as those of no mask do, by a MaskError.

    Of the demo's photos 0.12 and more of all pixels are of middle brightness and brighter or darker than both their
    neighbours; of their masks, blurred, resized or saved as JPEG, and of predicted maps at most 0.045.
    """
    if len(levels.numbers) <= 16:
        return
    step = max(1, len(values) // _ROWS)
    shares = values[::step].astype(np.float32) / np.float32(levels.top)
    middle = (shares > 0.05) & (shares < 0.95)
    slopes = np.diff(shares, axis=1)
    # Steps below a level of 8 bits are the noise of arithmetic.
    slopes[np.abs(slopes) < 0.003] = 0
    turns = (slopes[:, 1:] * slopes[:, :-1] < 0) & middle[:, 1:-1]
    if turns.size and turns.mean() > 0.055:
        raise MaskError(
            f"{what} looks like a photo and not like a mask. Are picture and mask swapped? The picture comes first: "
            "add_support(image, mask). If it is a noisy map of probabilities, pass it cut: map > 0.5."
        )


def flat_share(values: NDArray[Any], inner: NDArray[np.bool_]) -> float:
    """Which share of the ``inner`` pixels is like its neighbours to the right and below: classes are, edges are not."""
    step = max(1, (len(values) - 1) // _ROWS)
    here, below = values[:-1][::step], values[1:][::step]
    alike = (here[:, :-1] == here[:, 1:]) & (here[:, :-1] == below[:, :-1])
    counted = inner[:-1][::step][:, :-1]
    return float(alike[counted].mean()) if counted.any() else 0.0


def _are_soft(values: NDArray[Any], levels: Levels) -> bool:
    """Whether what lies between background and object is an edge between them, and not classes of its own."""
    numbers, greatest = levels.numbers, float(levels.numbers[-1])
    between = numbers[(numbers > 0) & (numbers < greatest)]
    if greatest < 128 or not len(between) or (len(between) == 1 and between[0] < 64):
        return False
    full = 250 <= greatest <= 255 or greatest >= 60_000
    flat = flat_share(values, (values > 0) & (values < greatest))
    if flat < (0.5 if full else 0.1):
        return full or len(between) >= 16
    # Counted objects may have any number above 255.
    countable = UNKNOWN < greatest < 60_000
    return len(between) >= 48 and not countable and _rises_slowly(values, greatest)


def _rises_slowly(values: NDArray[Any], greatest: float) -> bool:
    """Whether neighbours that differ do so by little, as far from a blurred edge, in rows and in columns."""
    step = max(1, len(values) // _ROWS)
    across = np.abs(np.diff(values[::step].astype(np.float32), axis=1))
    down = np.abs(values[1::step].astype(np.float32) - values[:-1:step])
    # Classes differ by anything, and objects that are numbered row by row by much in one of the two.
    small = [float((steps[steps > 0] <= 0.02 * greatest).mean()) for steps in (across, down) if steps.any()]
    return min(small, default=0) > 0.5


def _beside_unknown(values: NDArray[Any], number: int, what: str) -> NDArray[np.uint8]:
    if number in (127, 128):
        raise MaskError(
            f"{what} holds {number} and 255: a trimap, whose {number} is unknown, or a class {number} with unknown "
            f"edges? Say which is the object: value={number}, or of a trimap pass np.where(mask == {number}, 255, "
            "mask == 255)."
        )
    labels = np.asarray(values == number, np.uint8)
    labels[values == UNKNOWN] = UNKNOWN
    return labels
