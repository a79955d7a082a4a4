"""mIoU and FB-IoU as the field counts them (method, section 8)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.dataset import IGNORE

Counts = NDArray[np.int64]
"""``(2, 2)`` pixels: of the background and of the foreground, intersection and union."""


@dataclass(frozen=True, kw_only=True)
class SeedMeans:
    """Score of one set; means over the seeds."""

    name: str  # of the set
    miou: float  # in [0, 1]
    miou_std: float  # standard deviation over the seeds; 0 for one
    per_class: dict[str, float]  # IoU by class, in [0, 1]
    miou_of_seeds: tuple[float, ...]  # of each seed
    episodes: int  # how many were scored for each seed
    protocol: dict[str, Any]  # shots, seeds, smallest object, what was predicted by


def seed_means(scores: Sequence[SegmentationScore | WaysScore]) -> dict[str, Any]:
    """The fields of :class:`SeedMeans` that come of the scores of each seed."""
    mious = tuple(score.miou for score in scores)
    names = sorted({name for score in scores for name in score.per_class})
    return {
        "miou": float(np.mean(mious)),
        "miou_std": float(np.std(mious, ddof=1)) if len(mious) > 1 else 0.0,
        "per_class": {n: float(np.mean([s.per_class[n] for s in scores if n in s.per_class])) for n in names},
        "miou_of_seeds": mious,
    }


def counts_of(predicted: NDArray[np.bool_], target: NDArray[np.uint8]) -> Counts:
    """What one query counts, ``(H, W)`` predicted and true in {0, 1, 255}; pixels labelled 255 count nowhere."""
    known = target != IGNORE
    truth = target == 1
    sides = ((~predicted, ~truth), (predicted, truth))
    return np.array([(np.sum(p & t & known), np.sum((p | t) & known)) for p, t in sides], np.int64)


class SegmentationScore:
    """Intersections and unions, summed per class over all episodes.

    mIoU is the mean over classes of foreground IoU; FB-IoU the mean of foreground and background IoU pooled over
    episodes.
    """

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros((2, 2), np.int64))

    def add(self, name: str, predicted: NDArray[np.bool_], target: NDArray[np.uint8]) -> float:
        """Count one query, as :func:`counts_of` does; gives its own foreground IoU, in [0, 1]."""
        return self.add_counts(name, counts_of(predicted, target))

    def add_counts(self, name: str, counts: Counts) -> float:
        """As :meth:`add`, of a query that was counted."""
        self._counts[name] += counts
        return _ratio(counts[1])

    @property
    def per_class(self) -> dict[str, float]:
        """Foreground IoU of each class, in [0, 1]; a class never seen nor predicted counts as 0."""
        return {name: _ratio(counts[1]) for name, counts in sorted(self._counts.items())}

    @property
    def miou(self) -> float:
        """Mean over classes of foreground IoU, in [0, 1]."""
        return float(np.mean(list(self.per_class.values()))) if self._counts else 0.0

    @property
    def fb_iou(self) -> float:
        """Mean of foreground and background IoU pooled over all episodes, in [0, 1]."""
        pooled = sum(self._counts.values(), np.zeros((2, 2), np.int64))
        return float(np.mean([_ratio(pooled[0]), _ratio(pooled[1])]))


class WaysScore:
    """Intersections and unions of labels and background, summed over episodes."""

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(2, np.int64))
        # Apart from the labels, of which one may be called so, too.
        self._background = np.zeros(2, np.int64)

    def add(self, labels: Sequence[str], predicted: NDArray[np.integer[Any]], truth: NDArray[np.uint8]) -> None:
        """Count one query: ``(H, W)`` predicted, 0 or ``i + 1`` for ``labels[i]``, and the truth, 255 for nowhere."""
        known = truth != IGNORE
        count = len(labels) + 1
        pairs = truth[known].astype(np.int64) * count + predicted[known]
        confusion = np.bincount(pairs, minlength=count * count).reshape(count, count)
        both = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - both
        self._background += (both[0], union[0])
        for name, intersection, united in zip(labels, both[1:], union[1:], strict=True):
            self._counts[name] += (intersection, united)

    @property
    def per_class(self) -> dict[str, float]:
        """IoU of each label, in [0, 1]; without such a pixel, shown or found, left out."""
        return {name: float(i / u) for name, (i, u) in sorted(self._counts.items()) if u}

    @property
    def background(self) -> float | None:
        """IoU of the background, in [0, 1]; None without such a pixel, shown or found."""
        intersection, united = self._background
        return float(intersection / united) if united else None

    @property
    def miou(self) -> float:
        """Mean over the labels and the background, in [0, 1]."""
        ious = [*self.per_class.values(), *([] if self.background is None else [self.background])]
        return float(np.mean(ious)) if ious else 0.0


def _ratio(counts: NDArray[np.int64]) -> float:
    return float(counts[0] / counts[1]) if counts[1] else 0.0
