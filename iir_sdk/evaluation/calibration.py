"""Fits and scores the head that says how far predictions can be trusted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.data.dataset import FewShotDataset
from iir_sdk.errors import ConfigError, DatasetError
from iir_sdk.evaluation.evaluate import Protocol
from iir_sdk.evaluation.observation import Observed, present_and_absent
from iir_sdk.model.iir import IIR
from iir_sdk.model.presence import EVIDENCE, OF_CONFIDENCE_ALONE, score_logits
from iir_sdk.segmenter import FewShotSegmenter

_BINS, _FOLDS = 10, 8
_GOOD, _HALF = 0.5, 0.5
"""IoU of a good mask; presence that leaves no doubt."""

_LEAST_SPREAD = 0.01
"""Of evidence: what varies less among some episodes must not decide alone what it says of others."""


@dataclass(frozen=True)
class PresenceScore:
    """How well scores tell pictures with the object from those without.

    Attributes:
        name: of the set.
        auroc: probability that a picture with the object scores above one without, in [0, 1]; None where none of them
            is known not to show it.
        ece: expected calibration error of presence over ten bins (Guo et al., ICML 2017), in [0, 1].
        confidence_ece: the same of confidence against the share of the mask that is right, on pictures with the object;
            None where none got a mask, likewise the next one and the last.
        right: mean of that share.
        episodes: with the object.
        missed: share of the pictures whose mask is good, with an IoU of one half at least, that presence is below one
            half of; None where none is.
        confidence_error: root of the mean squared difference between confidence and the share that is right.
    """

    name: str
    auroc: float | None
    ece: float
    confidence_ece: float | None
    right: float | None
    episodes: int
    missed: float | None = None
    confidence_error: float | None = None

    def __str__(self) -> str:
        values = {
            "AUROC": self.auroc,
            "ECE": self.ece,
            "of the confidence": self.confidence_ece,
            "its error": self.confidence_error,
            "good masks below 0.5": self.missed,
        }
        shown = (f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in values.items())
        return f"{self.name:20} {'   '.join(shown)}   ({self.episodes} episodes)"


class ScoreHead(NamedTuple):
    """Rows of presence and of confidence: ``weight (2, 10)`` and ``bias (2,)``."""

    weight: Tensor
    bias: Tensor


def fit_scores(model: IIR, observed: Mapping[str, Observed], complete: Collection[str] = ()) -> IIR:
    """A copy of the model with a head for presence and confidence, fitted to predictions of it by :func:`fit_head`.

    A ConfigError where the architecture cannot have one, and a DatasetError as there.
    """
    head = fit_head(observed, complete)
    fitted = IIR(replace(model.config, presence=True, evidence=len(EVIDENCE)))
    others = {name: t for name, t in model.state_dict().items() if not name.startswith("decoder.scores.")}
    scores = {"decoder.scores.weight": head.weight, "decoder.scores.bias": head.bias}
    fitted.load_state_dict(others | scores)
    return fitted.eval()


def fit_head(observed: Mapping[str, Observed], complete: Collection[str] = ()) -> ScoreHead:
    """Presence and confidence by logistic regression.

    Presence is fitted to all predictions, by all that is not of confidence alone. Those that show the object count as
    much as those that do not; of either, sets whose masks are ``complete`` as much as all others, which alone have
    queries of other kinds; and the sets of either sort alike. Confidence is fitted to those with a mask where the
    object is, each set alike; its target is the share that is right.

    Args:
        observed: predictions by set.
        complete: sets that :func:`~iir_sdk.evaluation.observation.observe_among` took for such.

    Raises:
        DatasetError: no query is known not to show the object, or next to nothing was found.
    """
    evidence, shown, right, _ = (torch.cat(values) for values in zip(*(o[:4] for o in observed.values()), strict=True))
    masked = (shown > 0) & (right >= 0)
    if int(masked.sum()) < 2:
        raise DatasetError(
            f"{int(masked.sum())} of {int((shown > 0).sum())} pictures with the object got a mask, and at least 2 are "
            "needed; calibrate a trained network, on more episodes."
        )
    if (shown > 0).all():
        raise DatasetError(
            "of no picture is it known that it does not show the object: name sets whose masks are all that there are "
            "of their classes (--complete SET), or add sets of other things."
        )
    columns = torch.tensor([name not in OF_CONFIDENCE_ALONE for name in EVIDENCE])
    counts = _presence_counts(observed, complete), _confidence_counts(observed)[masked]
    weight, bias = torch.zeros(2, len(EVIDENCE)), torch.zeros(2)
    weight[0, columns], bias[0] = logistic_regression(evidence[:, columns], shown, counts[0])
    weight[1], bias[1] = logistic_regression(evidence[masked], right[masked], counts[1])
    return ScoreHead(weight, bias)


def _presence_counts(observed: Mapping[str, Observed], complete: Collection[str]) -> Tensor:
    """How much each prediction counts for presence; they sum to 1."""
    of_kind = {(name, kind): o.shown == kind for name, o in observed.items() for kind in (0.0, 1.0)}
    there = [key for key, chosen in of_kind.items() if chosen.any()]
    sets = Counter((kind, name in complete) for name, kind in there)
    sorts = Counter(kind for kind, _ in sets)
    counts = {name: torch.zeros_like(o.shown) for name, o in observed.items()}
    for name, kind in there:
        alike = 2 * sorts[kind] * sets[kind, name in complete] * int(of_kind[name, kind].sum())
        counts[name][of_kind[name, kind]] = 1 / alike
    return torch.cat(list(counts.values()))


def _confidence_counts(observed: Mapping[str, Observed]) -> Tensor:
    """How much each prediction counts for confidence; they sum to 1."""
    masked = [o.masked.float() for o in observed.values()]
    return torch.cat([each / each.sum().clamp_min(1) for each in masked]) / sum(bool(each.any()) for each in masked)


def cross_validated(observed: Mapping[str, Observed], complete: Collection[str] = ()) -> list[PresenceScore]:
    """How well each set is told by heads that were fitted without it; of ``complete`` ones, without the class.

    Empty where too little is left to fit a head to.
    """
    parts = {name: [c if name in complete else name for c in o.classes] for name, o in observed.items()}
    every = sorted({(name, part) for name, of_set in parts.items() for part in of_set})
    random.Random(0).shuffle(every)
    fold_of = {key: i % _FOLDS for i, key in enumerate(every)}
    folds = {name: torch.tensor([fold_of[name, part] for part in of_set]) for name, of_set in parts.items()}
    told = {name: torch.zeros(len(o.shown), 2) for name, o in observed.items()}
    for fold in range(min(_FOLDS, len(every))):
        rest = {name: o.of(folds[name] != fold) for name, o in observed.items() if (folds[name] != fold).any()}
        if not rest:
            return []
        try:
            head = fit_head(rest, complete)
        except DatasetError:
            return []
        for name, o in observed.items():
            out = folds[name] == fold
            told[name][out] = (o.evidence[out] @ head.weight.T + head.bias).sigmoid()
    return [_score(name, told[name], o) for name, o in observed.items()]


def logistic_regression(
    inputs: Tensor, labels: Tensor, counts: Tensor | None = None, *, decay: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Weights ``(C,)`` and bias of the least cross entropy on ``inputs (M, C)`` and ``labels (M,)`` in [0, 1].

    Each counts by ``counts (M,)``, which sum to 1; None for alike. ``decay`` holds back the squared weights of the
    inputs scaled to a standard deviation of 1.
    """
    shares = torch.full_like(labels, 1 / len(labels)) if counts is None else counts
    mean = shares @ inputs
    spread = (shares @ (inputs - mean).square()).sqrt().clamp_min(_LEAST_SPREAD)
    scaled = ((inputs - mean) / spread).double()
    parameters = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = scaled @ parameters[:-1] + parameters[-1]
        loss = F.binary_cross_entropy_with_logits(logits, labels.double(), shares.double(), reduction="sum")
        loss = loss + decay * parameters[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weight = parameters.detach()[:-1].float() / spread
    return weight, parameters.detach()[-1].float() - weight @ mean


def presence_score(segmenter: FewShotSegmenter, pictures: FewShotDataset, protocol: Protocol) -> PresenceScore:
    """Score a checkpoint's scores on pictures with and without the object.

    Raises:
        ConfigError: the checkpoint has no head for them.
        DatasetError: as :func:`present_and_absent`, or no picture with the object got a mask.
    """
    head = segmenter.torch_engine.network.decoder.scores
    if head is None:
        raise ConfigError(f"checkpoint {segmenter.checkpoint.name!r} gives no scores; fit them: iir-sdk calibrate.")
    observed = present_and_absent(segmenter, pictures, protocol)
    if not observed.masked.any():
        raise DatasetError(f"{pictures.name}: no picture with the object got a mask, so no confidence can be scored.")
    with torch.inference_mode():
        told = score_logits(observed.evidence.to(head.weight.device), head).sigmoid().cpu()
    return _score(pictures.name, told, observed)


def _score(name: str, told: Tensor, observed: Observed) -> PresenceScore:
    """Of presence and confidence ``told (M, 2)``."""
    presence, confidence = told.numpy().T
    shown, masked = observed.shown.numpy() > 0, observed.masked.numpy()
    right, good = observed.right.numpy()[masked], shown & (observed.iou.numpy() >= _GOOD)
    of_masks = confidence[masked]
    return PresenceScore(
        name,
        auroc(presence, shown) if 0 < shown.sum() < len(shown) else None,
        calibration_error(presence, shown.astype(np.float32)),
        calibration_error(of_masks, right) if masked.any() else None,
        float(right.mean()) if masked.any() else None,
        int(shown.sum()),
        float((presence[good] < _HALF).mean()) if good.any() else None,
        float(np.sqrt(np.square(of_masks - right).mean())) if masked.any() else None,
    )


def auroc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Share of pairs of a positive and a negative in which the positive scores higher; ties count half."""
    order = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(order[2])
    ranks = (ends - (order[2] - 1) / 2)[order[1].reshape(-1)]
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def calibration_error(probability: NDArray[np.float32], observed: NDArray[np.float32]) -> float:
    """Mean gap between stated probability and observed share over ten bins of equal width, weighted by their size."""
    bins = np.clip((probability * _BINS).astype(int), 0, _BINS - 1)
    gaps = [
        abs(float(probability[bins == b].mean()) - float(observed[bins == b].mean())) * float((bins == b).mean())
        for b in np.unique(bins)
    ]
    return float(sum(gaps))
