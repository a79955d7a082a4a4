"""mIoU and FB-IoU as the field counts them (method, section 8)."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.dataset import IGNORE


class SegmentationScore:
    """Intersections and unions, summed per class over all episodes.

    mIoU is the mean over classes of foreground IoU; FB-IoU the mean of foreground and background IoU pooled over
    episodes. Pixels labelled 255 count nowhere.
    """

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros((2, 2), np.int64))

    def add(self, name: str, predicted: NDArray[np.bool_], target: NDArray[np.uint8]) -> float:
        """Count one query; its own foreground IoU, in [0, 1].

        Args:
            name: its class.
            predicted: ``(H, W)`` bool.
            target: ``(H, W)`` in {0, 1, 255}.
        """
        known = target != IGNORE
        truth = target == 1
        counts = np.zeros((2, 2), np.int64)
        for side, (p, t) in enumerate(((~predicted, ~truth), (predicted, truth))):
            counts[side] = (np.sum(p & t & known), np.sum((p | t) & known))
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


def _ratio(counts: NDArray[np.int64]) -> float:
    return float(counts[0] / counts[1]) if counts[1] else 0.0
