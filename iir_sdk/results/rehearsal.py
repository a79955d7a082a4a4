"""What to expect of a label: how its shots are segmented by one another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iir_sdk.results.full_size import strips

THRESHOLDS = (0.02, *(i / 20 for i in range(1, 20)))
"""Which of them fits best is looked for."""
_HALF = THRESHOLDS.index(0.5)
_FEW = 5


def ious_at_thresholds(
    lead: NDArray[np.float32], mask: NDArray[np.bool_], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """IoU at each of :data:`THRESHOLDS` of ``lead (h, w)``, log-odds at the network's grid, among what is known.

    ``mask`` and ``known`` are ``(H, W)``; some of the mask is known.
    """
    cuts = np.log(np.array(THRESHOLDS) / (1 - np.array(THRESHOLDS))).astype(np.float32)
    counts = np.zeros((2, len(cuts) + 1), np.int64)
    for rows, strip in strips(lead, (mask.shape[0], mask.shape[1])):
        exceeded = np.searchsorted(cuts, strip)
        for side in (0, 1):
            of_side = exceeded[known[rows] & (mask[rows] == side)]
            counts[side] += np.bincount(of_side, minlength=len(cuts) + 1)
    false, true = counts[:, ::-1].cumsum(1)[:, -2::-1]
    ious: NDArray[np.float64] = true / (counts[1].sum() + false)
    return ious


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """How the ``n`` shots of a label are segmented, each by all others and the counterexamples; prints as a report.

    Attributes:
        label: of the shots.
        shots: their ids.
        ious: ``(n, T)``, of each shot's mask at each of :data:`THRESHOLDS`, where it is known.
        scores: ``(n,)`` in [0, 1], how probable it is by the others that each shot's picture shows the object.
        counterexamples: ids of those that are whole pictures.
        counterexample_scores: the same of them, by all shots and the further counterexamples.
        calibrated: whether the checkpoint's scores tell that.
        remarks: what to bear in mind.
    """

    label: str
    shots: tuple[str, ...]
    ious: NDArray[np.float64] = field(repr=False)
    scores: NDArray[np.float32]
    counterexamples: tuple[str, ...] = ()
    counterexample_scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    calibrated: bool = True
    remarks: tuple[str, ...] = ()

    @property
    def iou(self) -> float:
        """Mean IoU at threshold 0.5: what to expect of a picture like these, with a shot fewer than there are."""
        return float(self.ious[:, _HALF].mean())

    @property
    def iou_range(self) -> tuple[float, float]:
        """Lowest and highest IoU of a shot at threshold 0.5."""
        at_half = self.ious[:, _HALF]
        return float(at_half.min()), float(at_half.max())

    @property
    def threshold(self) -> float:
        """The threshold with the highest mean IoU, for ``predict(threshold=...)``; of equals that nearest to 0.5."""
        return THRESHOLDS[_best(self.ious)]

    @property
    def iou_at_threshold(self) -> float:
        """Mean IoU if each shot's threshold is the one that fits all others best: what such a choice is worth.

        Below :attr:`iou`, there are too few shots, or too different ones, to choose by.
        """
        others = (np.delete(self.ious, i, 0) for i in range(len(self.shots)))
        return float(np.mean([of_shot[_best(rest)] for of_shot, rest in zip(self.ious, others, strict=True)]))

    @property
    def odd_one(self) -> str:
        """Id of the shot that the others segment worst: a mistake in its mask, or something else than they show."""
        return self.shots[int(self.ious[:, _HALF].argmin())]

    @property
    def absent_below(self) -> float | None:
        """What tells the shots' scores from the counterexamples' best, for ``predict(absent_below=...)``.

        The middle of the widest gap with the smallest share of either on its wrong side. None without a counterexample
        that is a whole picture, of a checkpoint that is not calibrated, or where no value tells them apart.
        """
        if not self.calibrated or not len(self.counterexample_scores):
            return None
        values = np.unique(np.concatenate([self.scores, self.counterexample_scores]).astype(np.float64))
        cuts = (values[1:] + values[:-1]) / 2
        wrong = [self._wrong(cut) for cut in cuts]
        if not wrong or min(wrong) >= 1:
            return None
        return float(min(zip(wrong, -np.diff(values), cuts, strict=True))[2])

    def _wrong(self, cut: float) -> float:
        """Share of the shots below a score and share of the counterexamples that are not, summed."""
        return float((self.scores < cut).mean() + (self.counterexample_scores >= cut).mean())

    def __str__(self) -> str:
        count, (lowest, highest) = len(self.shots), self.iou_range
        lines = [
            f"{self.label!r}: {count} shots, each segmented by the other{' ' + str(count - 1) if count > 2 else ''}",
            f"  IoU at threshold 0.5: {self.iou:.2f} on average, {lowest:.2f} to {highest:.2f}",
            f"  lowest: support {self.odd_one}; is its mask right, and does it show what the others do?",
            self._line_of_threshold(),
            *self._lines_of_scores(),
        ]
        if count < _FEW:
            lines.append(f"  {count} shots say little: a new picture may well lie outside of that range")
        return "\n".join([*lines, *(f"  {remark}" for remark in self.remarks)])

    def _line_of_threshold(self) -> str:
        if self.threshold == 0.5:
            return "  threshold: 0.5 fits best"
        expected = self.iou_at_threshold
        here = float(self.ious[:, THRESHOLDS.index(self.threshold)].mean())
        line = f"  threshold {self.threshold:g} fits these shots best: {here:.2f}; chosen without the shot it is "
        verdict = "" if expected > self.iou else ", no better than 0.5"
        return f"{line}tried on: {expected:.2f}{verdict}"

    def _lines_of_scores(self) -> list[str]:
        if not self.calibrated:
            return []
        shots, others = self.scores, self.counterexample_scores
        line = f"  scores of the shots: {shots.min():.3g} to {shots.max():.3g}"
        if not len(others):
            return [f"{line}; for absent_below add pictures without it: add_counterexample(image)"]
        lines = [line, f"  scores of {len(others)} counterexample(s): {others.min():.3g} to {others.max():.3g}"]
        cut = self.absent_below
        if cut is None:
            return [*lines, "  absent_below: no value tells them apart"]
        missed, taken = int((shots < cut).sum()), int((others >= cut).sum())
        return [
            *lines,
            f"  absent_below={cut:.4g} loses {missed} of the shots and takes {taken} of the counterexamples",
        ]


def _best(ious: NDArray[np.float64]) -> int:
    """Column of ``(n, T)`` with the highest mean; of equals that nearest to 0.5."""
    means = ious.mean(0)
    best = np.flatnonzero(means >= means.max() - 1e-9)
    return int(best[np.abs(np.array(THRESHOLDS)[best] - 0.5).argmin()])
