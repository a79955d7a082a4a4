"""What earlier frames say of the next one: their sure masks as further supports, and where the object was."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.base import TaskGroup
from iir_sdk.errors import ConfigError
from iir_sdk.pictures.preprocess import resized_map
from iir_sdk.results.full_size import Segmented, probability_map
from iir_sdk.results.segmentation import Cut, Segmentation, scores_of, segmentation
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.supports.encoded import EncodedSupport
from iir_sdk.video.motion import Seen, carried, carried_by_looks, colours_of
from iir_sdk.video.reading import Still

MEMORY = 0
"""Frames of each label that are further supports where nothing else is said: with the present weights masks are worse
by them (``benchmarks/video.py``)."""
STEADY = 1.0
"""How much of the frame before counts where nothing else is said."""

_MOST = 3.0
"""Log-odds of a frame that count at most."""
_BY_LOOKS = 3.0
"""How many times they count where the network says what looks alike: as much as it says itself, where all does."""
_DRAWN = 3
"""Frames with the user's masks that are carried from, the latest ones."""
_SURE = 0.3
"""Score times confidence of a mask that is remembered."""
_AGREED = 0.6
"""IoU of such a mask with the one by the user's supports alone."""
_CLEAR = 0.8
"""Probability of a pixel of it, or of its background; what lies between is unknown."""
_LEAST = 0.003
"""Share of a frame that it covers."""
_APART = 0.3
"""Seconds between two frames that are remembered."""


@dataclass(frozen=True)
class Recall:
    """What earlier frames count for."""

    memory: int = MEMORY  # most frames remembered for each label as further supports, in [0, 100]
    # Log-odds that a place gains for each that it had in the frame before, in [0, 1].
    steady: float = STEADY

    def __post_init__(self) -> None:
        """Check the ranges; a ConfigError names the value."""
        memory, steady = self.memory, self.steady
        if isinstance(memory, bool) or not isinstance(memory, (int, np.integer)) or not 0 <= memory <= 100:
            raise ConfigError(f"memory={memory!r} must be an integer in [0, 100]: frames that are remembered.")
        number = isinstance(steady, (int, float, np.integer, np.floating)) and not isinstance(steady, bool)
        if not number or not 0 <= steady <= 1:
            raise ConfigError(f"steady={steady!r} must be a number in [0, 1].")


@dataclass
class Remembered:
    """Of one label.

    Attributes:
        states: encoded frames with sure masks, the oldest first.
        last: when the latest of them was, in seconds.
    """

    states: deque[EncodedSupport]
    last: float = -np.inf


@dataclass
class Place:
    """Where the objects were in the frame before.

    Attributes:
        leads: float32 ``(L, h, w)``, log-odds.
        colours: float32 ``(30, 30, 3)``, that frame.
    """

    leads: NDArray[np.float32]
    colours: NDArray[np.float32] = field(repr=False)


class Memory:
    """Segments the frames of one video in order, by the segmenter's supports and by what it remembers of the frames.

    The given supports are decoded by alone in each frame, and so never forgotten: a frame is remembered only where
    that mask agrees. What is remembered is decoded by beside them, and the log-odds of both are averaged.

    Args:
        segmenter: with supports.
        labels: see :meth:`FewShotSegmenter.predict`.
        cut: where probabilities become masks.
        recall: what earlier frames count for; with 0 and 0 each is segmented by itself.
    """

    def __init__(self, segmenter: FewShotSegmenter, labels: Sequence[str] | None, cut: Cut, recall: Recall) -> None:
        self._segmenter, self._labels, self._cut = segmenter, labels, cut
        self._recall = recall
        self._remembered: dict[str, Remembered] = {}
        self._place: Place | None = None
        self._before: Seen | None = None
        self._drawn: deque[Seen] = deque(maxlen=_DRAWN)
        self._tasks: list[TaskGroup] = []

    def segment(self, still: Still, drawn: Mapping[str, NDArray[np.bool_]] | None = None) -> Segmentation:
        """The next frame; ``drawn`` are the user's masks of it ``(H, W)``, by which it is known where its objects are.

        Raises as :meth:`FewShotSegmenter.predict` does.
        """
        names, segmented, looks, timings = self._segmenter.segment_beside(
            still.picture, self._tasks, labels=self._labels, cut=self._cut
        )
        count = len(names)
        alone = segmented.leads[:count]
        segmented = self._joined(names, segmented)
        if self._recall.steady and looks is not None:
            self._steady_by_looks(segmented.leads, looks)
            self._keep(
                Seen(
                    _with_drawn(segmented.leads, names, drawn or {}).clip(-_MOST, _MOST),
                    looks,
                    set(names) <= set(drawn or {}),
                )
            )
        elif self._recall.steady:
            colours = colours_of(still.picture.pixels)
            self._steady_by_place(segmented.leads, colours)
            self._place = Place(_with_drawn(segmented.leads, names, drawn or {}), colours)
        result = segmentation(names, segmented, image=still.picture.pixels, cut=self._cut, timings=timings)
        if self._recall.memory:
            self._remember(still, names, segmented, alone)
        return result

    @property
    def remembered(self) -> dict[str, tuple[EncodedSupport, ...]]:
        """Frames that are further supports now, by label, the oldest first."""
        return {label: tuple(of_label.states) for label, of_label in self._remembered.items()}

    def _joined(self, names: tuple[str, ...], segmented: Segmented) -> Segmented:
        """What the given supports say, and what the memory says, as one; a copy."""
        count = len(names)
        leads, priors = segmented.leads[:count].copy(), segmented.priors[:count].copy()
        scores = None if segmented.scores is None else segmented.scores[:count].copy()
        for column, name in enumerate((n for n in names if n in self._remembered), count):
            i = names.index(name)
            leads[i] = (leads[i] + segmented.leads[column]) / 2
            priors[i] = (priors[i] + segmented.priors[column]) / 2
            if scores is not None and segmented.scores is not None:
                scores[i] = (scores[i] + segmented.scores[column]) / 2
        return Segmented(leads, priors, scores)

    def _steady_by_looks(self, leads: NDArray[np.float32], looks: NDArray[np.float32]) -> None:
        """Add to the log-odds ``(L, h, w)`` what the frame before and those that the user has drawn say."""
        frames = [*self._drawn, *([] if self._before is None else [self._before])]
        maps = carried_by_looks(frames, looks)
        if maps is not None:
            leads += self._recall.steady * _BY_LOOKS * maps

    def _keep(self, frame: Seen) -> None:
        self._before = None if frame.drawn else frame
        if frame.drawn:
            self._drawn.append(frame)

    def _steady_by_place(self, leads: NDArray[np.float32], colours: NDArray[np.float32]) -> None:
        """Add to the log-odds ``(L, h, w)`` what the frame before says."""
        if self._place is not None:
            before = self._place.leads.clip(-_MOST, _MOST)
            leads += self._recall.steady * carried(before, self._place.colours, colours)

    def _remember(self, still: Still, names: tuple[str, ...], segmented: Segmented, alone: NDArray[np.float32]) -> None:
        """Keep the frame for labels whose masks are sure, and forget the oldest one beyond the budget."""
        changed = False
        presence, confidences = scores_of(segmented, Cut())
        for name, lead, by_user, certainty in zip(names, segmented.leads, alone, presence * confidences, strict=True):
            latest = self._remembered.get(name)
            if (latest and still.time - latest.last < _APART) or certainty < _SURE or not _agree(lead, by_user):
                continue
            state = self._encoded(still, lead)
            if state is not None:
                label = self._remembered.setdefault(name, Remembered(deque(maxlen=self._recall.memory)))
                label.states.append(state)
                label.last, changed = still.time, True
        if changed:
            self._tasks = self._segmenter.engine.prepare(
                [self._segmenter.task(list(self._remembered[n].states)) for n in names if n in self._remembered]
            )

    def _encoded(self, still: Still, lead: NDArray[np.float32]) -> EncodedSupport | None:
        """A frame as a support, by what is clear of its mask; None where too little of it is."""
        probability = probability_map(lead, still.picture.size)
        mask = probability > _CLEAR
        known = mask | (probability < 1 - _CLEAR)
        if mask.mean() < _LEAST or not (known & ~mask).any():
            return None
        return self._segmenter.engine.encode(still.picture.pixels, mask, known)


def _agree(lead: NDArray[np.float32], by_user: NDArray[np.float32]) -> bool:
    mask, of_user = lead > 0, by_user > 0
    return bool((mask & of_user).sum() >= _AGREED * max(1, (mask | of_user).sum()))


def _with_drawn(
    leads: NDArray[np.float32], names: tuple[str, ...], drawn: Mapping[str, NDArray[np.bool_]]
) -> NDArray[np.float32]:
    """Log-odds ``(L, h, w)`` with those of labels that the user has drawn by the masks ``(H, W)``; a copy."""
    joined = leads.copy()
    for name, mask in drawn.items():
        if name in names:
            share = resized_map(mask.astype(np.float32), (leads.shape[1], leads.shape[2]))
            joined[names.index(name)] = (2 * share - 1) * _MOST
    return joined
