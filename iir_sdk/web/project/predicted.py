"""What is kept of a picture's prediction, and the masks that come of it at any size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from iir_sdk.results.correction import corrected
from iir_sdk.results.full_size import Segmented, probability_map
from iir_sdk.results.segmentation import Cut, Segmentation, segmentation
from iir_sdk.segmenting.journal import Row

_COUNTED = 160
"""Longest side of the map that areas are counted on."""


@dataclass(frozen=True)
class Predicted:
    """One picture's prediction.

    Attributes:
        version: of the supports and settings that it was made by.
        labels: ids, in the order of the first axis below.
        leads: float16 ``(L, h, w)``, log-odds at the network's grid.
        scores: float32 ``(L, 2)`` in [0, 1], as the engine gave them; None of a network without.
        cut: where probabilities become masks.
        rows: of each label, as in the table of results.
    """

    version: int
    labels: tuple[int, ...]
    leads: NDArray[np.float16] = field(repr=False)
    scores: NDArray[np.float32] | None
    cut: Cut
    rows: tuple[Row, ...]

    @classmethod
    def of(
        cls, version: int, labels: tuple[int, ...], segmented: Segmented, cut: Cut, size: tuple[int, int]
    ) -> Predicted:
        """What an engine made of a picture of ``size`` (height, width)."""
        scale = min(1.0, _COUNTED / max(size))
        small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        result = _segmentation(labels, segmented.leads, segmented.scores, cut, small)
        counts = np.bincount(result.label_map.ravel(), minlength=len(labels) + 1)
        rows = []
        for i, label in enumerate(labels):
            share = float(counts[i + 1]) / (small[0] * small[1])
            area = max(int(counts[i + 1] > 0), round(share * size[0] * size[1]))
            score, confidence = float(result.scores[i]), float(result.confidences[i])
            rows.append(Row("", str(label), score, confidence, area, share))
        return cls(version, labels, segmented.leads.astype(np.float16), segmented.scores, cut, tuple(rows))

    @property
    def certainty(self) -> float:
        """In [0, 1], of the label that is least certain, as the table of results orders pictures."""
        return min(row.certainty for row in self.rows)

    def with_lead(self, place: int, lead: NDArray[np.float32]) -> Predicted:
        """With other log-odds ``(h, w)`` of one label, until it is predicted anew: what rows say stays."""
        leads = self.leads.copy()
        leads[place] = lead
        return replace(self, leads=leads)

    def places(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Ids of labels ``(H, W)`` at ``size`` (height, width), 0 for background."""
        ids = np.array([0, *self.labels], np.uint8)
        return ids[self.segmentation(size).label_map]

    def sure(self, label: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """What is sure of a label: 1 the object, 0 background, 255 unknown ``(H, W)``; None of one not predicted."""
        if label not in self.labels:
            return None
        lead = self.leads[self.labels.index(label)].astype(np.float32)
        nothing = np.zeros(size, np.bool_)
        return corrected(probability_map(lead, size), nothing, nothing)

    def segmentation(self, size: tuple[int, int]) -> Segmentation:
        """The prediction of a blank picture of ``size`` (height, width), its labels named by their ids."""
        return _segmentation(self.labels, self.leads.astype(np.float32), self.scores, self.cut, size)


def _segmentation(
    labels: tuple[int, ...],
    leads: NDArray[np.float32],
    scores: NDArray[np.float32] | None,
    cut: Cut,
    size: tuple[int, int],
) -> Segmentation:
    blank = np.broadcast_to(np.uint8(0), (*size, 3))
    priors = np.broadcast_to(np.float32(0), leads.shape)
    segmented = Segmented(leads, priors, scores)
    return segmentation(tuple(map(str, labels)), segmented, image=blank, cut=cut, timings={})
