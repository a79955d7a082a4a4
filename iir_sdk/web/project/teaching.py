"""From what was painted in a picture to the support or counterexample that the network takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.data.bounded_cache import BoundedCache
from iir_sdk.engines.base import Engine
from iir_sdk.engines.box import mask_in_box
from iir_sdk.pictures.masks import UNKNOWN
from iir_sdk.results.correction import corrected_and_spread, spread
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.supports.bank import Counterexample, Example, Support
from iir_sdk.web.project.actions import PAINTING
from iir_sdk.web.project.file import ProjectFolder
from iir_sdk.web.project.marks import box_pixels, marks_of, outside_box
from iir_sdk.web.project.pictures import Shelf
from iir_sdk.web.project.predicted import Predicted
from iir_sdk.web.project.state import Stroke

_EXAMPLES = 512 << 20
"""Bytes of encoded supports that are kept, so that taking back and doing again cost nothing."""

_BORDER = 0.04
"""Of the longer side: how wide the border is that is taken for background while none is known."""

_PAINTED_AGAIN = "start the picture over, and paint it again."

Key: TypeAlias = "tuple[Stroke, ...]"


class Teacher:
    """Encodes supports and counterexamples from strokes, each once; one thread at a time.

    Args:
        engine: the network.
        shelf: the pictures.
        project: keeps masks that strokes name.
        looks: of a picture, what its places look like to the network, or None; see :meth:`Engine.looks`.
    """

    def __init__(
        self,
        engine: Engine,
        shelf: Shelf,
        project: ProjectFolder,
        looks: Callable[[str], NDArray[np.float32] | None] = lambda picture: None,
    ) -> None:
        self.engine, self.shelf, self.project, self._looks = engine, shelf, project, looks
        self._examples: BoundedCache[Key, Example] = BoundedCache(_EXAMPLES, lambda example: example.nbytes)
        self._boxes: BoundedCache[Stroke, NDArray[np.uint8]] = BoundedCache(64 << 20, lambda mask: int(mask.nbytes))

    def example(self, strokes: Key) -> Example | None:
        """What strokes of one picture and label teach; None where all was taken back.

        Object marks, with what is known to be background, are a support; background alone is a counterexample, and so
        is a picture that shows nothing of the label.

        Raises:
            ImageError, PictureNotFoundError: the picture cannot be read.
            MaskError: nothing can be told from the marks, as where all of the picture is the object.
        """
        example = self._examples.get(strokes)
        if example is None:
            example = self._taught(strokes)
            if example is not None:
                self._examples.put(strokes, example)
        return None if example is None else replace(example, label=str(strokes[0].label))

    def _taught(self, strokes: Key) -> Support | Counterexample | None:
        pixels = self.shelf.shown(strokes[0].picture)
        size = (pixels.shape[0], pixels.shape[1])
        marks = marks_of(strokes, size, self.mask_of)
        if is_correction(strokes):
            painted = marks_of(strokes[1:], size, self.mask_of)
            if (painted == UNKNOWN).all():
                # All was taken back: what was predicted is nothing that anybody said.
                return None
            looks = self._looks(strokes[0].picture)
            if looks is not None:
                sure = self.mask_of(strokes[0], self.shelf.guess_size(strokes[0].picture))
                marks = corrected_and_spread(sure, painted, looks)
        segmenter = FewShotSegmenter(self.engine)
        if (marks == 1).any():
            if not (marks == 0).any():
                marks = with_border(marks)
            return segmenter.add_support(pixels, marks == 1, known=marks != UNKNOWN, keep_picture=False)
        if strokes[-1].kind == "not_here":
            return segmenter.add_counterexample(pixels, keep_picture=False)
        if (marks == 0).any():
            return segmenter.add_counterexample(pixels, marks == 0, keep_picture=False)
        return None

    def spread(self, lead: NDArray[np.float32], strokes: Key) -> NDArray[np.float32] | None:
        """Log-odds ``(h, w)`` of a picture with its own strokes spread; None where they correct no prediction.

        None as well where the network does not tell what places look like.
        """
        if not is_correction(strokes):
            return None
        looks = self._looks(strokes[0].picture)
        if looks is None:
            return None
        return spread(lead, marks_of(strokes[1:], self.shelf.guess_size(strokes[0].picture), self.mask_of), looks)

    def spread_all(self, leads: NDArray[np.float32], strokes: Sequence[Key]) -> NDArray[np.float32]:
        """Log-odds ``(L, h, w)`` of a picture with its own strokes of each label spread."""
        spread = (self.spread(*each) for each in zip(leads, strokes, strict=True))
        return np.stack([lead if new is None else new for lead, new in zip(leads, spread, strict=True)])

    def seen_at_once(self, predicted: Predicted | None, strokes: Key) -> Predicted | None:
        """A picture's last prediction with one more stroke of a label, spread where it corrects; None without one."""
        if predicted is None or strokes[0].label not in predicted.labels:
            return None
        place = predicted.labels.index(strokes[0].label)
        lead = self.spread(predicted.leads[place].astype(np.float32), strokes)
        return predicted if lead is None else predicted.with_lead(place, lead)

    def mask_of(self, stroke: Stroke, size: tuple[int, int]) -> NDArray[np.uint8]:
        """A box as the network fills it, a whole mask, and what was sure before: 0, 1 and 255 ``(H, W)``."""
        if stroke.mask:
            return resized_mask(self.project.read_mask(stroke.mask, _PAINTED_AGAIN), size)
        mask = self._boxes.get(stroke)
        if mask is None:
            pixels = self.shelf.shown(stroke.picture)
            box = np.zeros(pixels.shape[:2], np.bool_)
            x0, y0, x1, y1 = box_pixels(stroke, (pixels.shape[0], pixels.shape[1]))
            box[y0:y1, x0:x1] = True
            mask = mask_in_box(self.engine, pixels, box).astype(np.uint8)
            self._boxes.put(stroke, mask)
        return resized_mask(mask, size)

    def held_by(self, stroke: Stroke, size: tuple[int, int]) -> NDArray[np.uint8]:
        """What of a box, mask or guess holds whatever is predicted; see :func:`iir_sdk.web.project.marks.held_to`."""
        if stroke.kind == "guess":
            return np.full(size, UNKNOWN, np.uint8)
        return outside_box(stroke, size) if stroke.kind == "box" else self.mask_of(stroke, size)


def is_correction(strokes: Key) -> bool:
    """Whether all that was said of a picture is painted over what was predicted."""
    return bool(strokes) and strokes[0].kind == "guess" and all(stroke.kind in PAINTING for stroke in strokes[1:])


def resized_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Numbers ``(h, w)`` at ``size`` (height, width), none of them new."""
    if mask.shape == size:
        return mask
    return np.array(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def with_border(marks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Marks ``(H, W)`` without background, with the picture's border as such, but near what is marked.

    While nothing is known to be background, all of a picture may be taken for the object; most things that are painted
    do not reach the border, and where one does, further strokes say so.
    """
    width = max(1, round(_BORDER * max(marks.shape)))
    border = np.ones(marks.shape, np.bool_)
    border[width:-width, width:-width] = False
    spans = (np.flatnonzero((marks == 1).any(axis)) for axis in (1, 0))
    near = tuple(slice(max(0, int(span[0]) - 2 * width), int(span[-1]) + 2 * width + 1) for span in spans)
    border[near] = False
    return np.where(border & (marks == UNKNOWN), np.uint8(0), marks)
