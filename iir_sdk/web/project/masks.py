"""The masks that users see and export: predicted, corrected by the picture's own strokes, or as they were accepted."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from iir_sdk.web.project.known import Known
from iir_sdk.web.project.marks import MaskOf, by_label, held_to
from iir_sdk.web.project.teaching import resized_mask


class FinalMasks:
    """Maps of a project's pictures, for any thread."""

    def __init__(self, known: Known, held_by: MaskOf) -> None:
        self._known, self._held_by = known, held_by

    def places(self, picture: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Ids of labels ``(H, W)`` at ``size`` (height, width), 0 for background; None while there is no mask.

        Raises:
            ProjectError: the file of an accepted mask is gone.
        """
        state = self._known.held.state
        verdict, predicted = state.verdicts.get(picture), self._known.predicted.get(picture)
        if verdict is not None and verdict.mask:
            places = resized_mask(self._known.project.read_mask(verdict.mask), size)
        elif predicted is not None:
            strokes = by_label(s for s in state.strokes_of(picture) if s.label in state.labels)
            places = held_to(predicted.places(size), strokes, self._held_by)
        else:
            return None
        # Of labels that were deleted since.
        present = np.zeros(256, np.uint8)
        present[list(state.labels)] = list(state.labels)
        return present[places]

    def png(self, picture: str, size: tuple[int, int]) -> bytes | None:
        """The map as a PNG: ``i + 1`` is the project's ``i``-th label, in its colour, and 0 is transparent."""
        places = self.places(picture, size)
        if places is None:
            return None
        labels = list(self._known.held.state.labels.values())
        numbers = np.zeros(256, np.uint8)
        numbers[[label.id for label in labels]] = np.arange(1, len(labels) + 1)
        image = Image.fromarray(numbers[places]).convert("P")
        colours = [channel for label in labels for channel in ImageColor.getrgb(label.color)]
        image.putpalette([0, 0, 0, *colours])
        content = io.BytesIO()
        image.save(content, "PNG", transparency=0, compress_level=1)
        return content.getvalue()

    def tag(self, picture: str, size: tuple[int, int]) -> str:
        """Changes whenever :meth:`png` does."""
        state, predicted = self._known.held.state, self._known.predicted.get(picture)
        verdict = state.verdicts.get(picture)
        strokes = state.strokes_of(picture)
        version = None if predicted is None else predicted.version
        parts = (picture, size, version, verdict, strokes, tuple(state.labels.values()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
