"""From a picture's pixels to the network's input, and from its output back to the picture's own size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.records import CheckedRecord, Rule, within

# Of the demo's six supports as clicks and as strokes, five times each, IoU is 0.50 and 0.70 where they are cut by all
# that is known, 0.48 and 0.65 by their marks on the object alone.
_MOSTLY_KNOWN = 0.5
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class SupportInput(NamedTuple):
    """What the network takes of a support."""

    image: NDArray[np.float32]  # ``(3, side, side)``, normalised
    mask: NDArray[np.float32]  # ``(side, side)``, share of foreground in [0, 1]
    known: NDArray[np.float32]  # ``(side, side)``, share that the mask speaks of, in [0, 1]


_Side = Annotated[int, within(64, 2048)]
_Share = Annotated[float, within(0, 1)]
_Spread = Annotated[float, within(1e-4, 1)]
_Context = Annotated[float, Rule(lambda v: v == 0 or 1 <= v <= 100, "that is 0 or in [1, 100]")]


@dataclass(frozen=True)
class Preprocessing(CheckedRecord, prefix="preprocessing: "):
    """How a checkpoint wants its pictures."""

    # Side of a query's square input in pixels; pictures are resized to it, aspect not kept. Convolutional backbones
    # like multiples of 32; a transformer needs multiples of its patch.
    size: _Side = 384
    support_size: _Side = 384  # the same for supports
    # A support is cut to this many times its object's box before it is resized, so that small objects fill the input; 0
    # keeps the whole picture.
    support_context: _Context = 2.0
    mean: tuple[_Share, _Share, _Share] = (0.5, 0.5, 0.5)  # per channel, of values in [0, 1]
    std: tuple[_Spread, _Spread, _Spread] = (0.5, 0.5, 0.5)  # per channel
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # ``bilinear`` or ``bicubic``, always antialiased

    def image(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A query: ``(H, W, 3)`` uint8 RGB -> ``(3, size, size)`` float32, resized and normalised; channels last."""
        return self._normalised(resized_picture(pixels, self.size, self.interpolation))

    def support(
        self,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        known: NDArray[np.bool_] | None = None,
    ) -> SupportInput:
        """A support and its mask, cut to the object's surroundings and resized to ``support_size``.

        The mask is bool ``(H, W)``, neither empty nor all of what is ``known``; None is known throughout.
        """
        known = np.ones_like(mask) if known is None else known
        rows, columns = self.support_cut(mask, known)
        side = (self.support_size, self.support_size)
        shares = (resized_map(each[rows, columns].astype(np.float32), side) for each in (mask & known, known))
        resized = resized_picture(pixels[rows, columns], self.support_size, self.interpolation)
        return SupportInput(self._normalised(resized), *shares)

    def support_cut(self, mask: NDArray[np.bool_], known: NDArray[np.bool_]) -> tuple[slice, slice]:
        """Rows and columns of what is taken of a support, by its mask and where that is known, both ``(H, W)``.

        They are the object's box enlarged ``support_context`` times, inside the picture; all of it for 0. The cut is at
        most a third longer than wide, has at least 64 pixels a side where the picture has them, and is given up where
        it would show no background. Where only some of the object is marked, the box is that of all that is known.
        """
        whole = (slice(0, mask.shape[0]), slice(0, mask.shape[1]))
        if self.support_context == 0:
            return whole
        cut = self._around(mask)
        if _share(known[cut]) < _MOSTLY_KNOWN:
            cut = self._around(known)
        return cut if (known[cut] & ~mask[cut]).any() else whole

    def marks_only(self, mask: NDArray[np.bool_], known: NDArray[np.bool_]) -> bool:
        """Whether a mask shows where the object is and not how far it reaches: little around it is known.

        So it is of clicks and strokes, whose own size says nothing of the object's.
        """
        return _share(known[self._around(mask)]) < _MOSTLY_KNOWN

    def _around(self, mask: NDArray[np.bool_]) -> tuple[slice, slice]:
        """Rows and columns of a mask's box with its surroundings."""
        context = self.support_context or 2.0
        spans = []
        for axis in (1, 0):
            marked = np.flatnonzero(np.asarray(mask.any(axis=axis)))
            spans.append((int(marked[0]), int(marked[-1]) + 1))
        longest = max(end - start for start, end in spans) * context
        cut = []
        for (start, end), length in zip(spans, mask.shape, strict=True):
            side = min(length, max(64, round(max((end - start) * context, 0.75 * longest))))
            first = min(max(0, (start + end - side) // 2), length - side)
            cut.append(slice(first, first + side))
        return cut[0], cut[1]

    def _normalised(self, square: NDArray[np.uint8]) -> NDArray[np.float32]:
        side = len(square)
        # By whole rows: numpy is four times slower where the last axis is three channels.
        scale, shift = (np.tile(values, side) for values in self.scale_and_shift)
        normalised = square.reshape(side, 3 * side).astype(np.float32)
        normalised *= scale
        normalised += shift
        return normalised.reshape(side, side, 3).transpose(2, 0, 1)

    @property
    def scale_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What normalising multiplies 8-bit values by, and then adds, per channel."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def _share(mask: NDArray[np.bool_]) -> float:
    # A mean of booleans takes twenty times as long.
    return np.count_nonzero(mask) / mask.size


def resized_picture(pixels: NDArray[np.uint8], side: int, interpolation: str) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 -> a square of ``side`` pixels, by ``bilinear`` or ``bicubic``, antialiased.

    Every backend resizes by this, since a mask's edge moves with a single grey level.
    """
    height, width = pixels.shape[:2]
    # At four times the side and more, a mean of whole rows first: half of PIL's time on photos, and on average within
    # a third of a level of what PIL gives.
    count = min(256, height // (2 * side))
    if count > 1:
        pixels = _mean_rows(pixels, count)
    box = (0, 0, width, height / max(1, count))
    return np.asarray(Image.fromarray(pixels).resize((side, side), _FILTERS[interpolation], box=box))


def _mean_rows(pixels: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Mean of each ``count`` <= 256 rows; where fewer are left at the end, of the last ``count``."""
    height, width = pixels.shape[:2]
    rows, whole = pixels.reshape(height, -1), height // count
    sums = np.zeros((-(-height // count), rows.shape[1]), np.uint16)
    for first in range(count):
        sums[:whole] += rows[first : whole * count : count]
    if whole < len(sums):
        sums[whole] = rows[height - count :].sum(0)
    # Rounded; the sum stays below 2 ** 16, as 256 * 255 + 128 does.
    sums += count // 2
    sums //= count
    return sums.astype(np.uint8).reshape(len(sums), width, 3)


def resized_map(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear resize of ``(h, w)`` to ``size`` (height, width), antialiased where it shrinks."""
    image = Image.fromarray(np.ascontiguousarray(values)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    # A copy: the image's own memory is read-only, which torch warns of.
    return np.array(image, np.float32)
