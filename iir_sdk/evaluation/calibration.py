"""Fits and scores the head that says how far predictions can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from iir_sdk.data.dataset import IGNORE, FewShotDataset
from iir_sdk.data.episodes import Episode
from iir_sdk.errors import ConfigError, DatasetError
from iir_sdk.evaluation.absence import absent_episodes
from iir_sdk.evaluation.evaluate import Evaluator, Protocol, draw_episodes
from iir_sdk.model.iir import IIR
from iir_sdk.model.presence import score_logits
from iir_sdk.results.full_size import mask_map
from iir_sdk.results.segmentation import Cut
from iir_sdk.segmenter import FewShotSegmenter

_BINS = 10


@dataclass(frozen=True)
class PresenceScore:
    """How well scores tell pictures with the object from those without, half of each.

    Attributes:
        name: of the set.
        auroc: probability that a picture with the object scores above one without, in [0, 1].
        ece: expected calibration error of presence over ten bins (Guo et al., ICML 2017), in [0, 1].
        confidence_ece: the same of confidence against the share of the mask that is right, on pictures with the object.
        right: mean of that share.
        episodes: of each kind.
    """

    name: str
    auroc: float
    ece: float
    confidence_ece: float
    right: float
    episodes: int


class Observed(NamedTuple):
    """What is known of ``M`` predictions.

    Attributes:
        evidence: ``(M, 6)`` of :func:`~iir_sdk.model.presence.prediction_evidence`.
        shown: ``(M,)``, 1 where the query shows the object, else 0.
        right: ``(M,)`` in [0, 1], share of the mask that is of the object; -1 where it is empty.
    """

    evidence: Tensor
    shown: Tensor
    right: Tensor

    @property
    def masked(self) -> Tensor:
        """``(M,)`` bool, those with a mask where the object is shown."""
        return (self.shown > 0) & (self.right >= 0)


def present_and_absent(segmenter: FewShotSegmenter, pictures: FewShotDataset, protocol: Protocol) -> Observed:
    """Predictions on as many pictures that show the object as on such that do not.

    Args:
        segmenter: runs on PyTorch.
        pictures: the set.
        protocol: shots, episodes, the first of its seeds, smallest share.

    Raises:
        DatasetError: no class has enough pictures.
        NoAbsenceError: all pictures show a class.
    """
    seed = protocol.seeds[0]
    present = draw_episodes(pictures, replace(protocol, seeds=(seed,)))[seed]
    evaluator = Evaluator(segmenter, pictures)
    both = [*present, *absent_episodes(pictures, present, seed)]
    seen = [_observe(evaluator, e) for e in tqdm(both, desc=pictures.name, unit="episode")]
    shown = torch.tensor([1.0] * len(present) + [0.0] * len(present))
    return Observed(torch.stack([evidence for evidence, _ in seen]), shown, torch.tensor([right for _, right in seen]))


def _observe(evaluator: Evaluator, episode: Episode) -> tuple[Tensor, float]:
    """Evidence, and the share of the mask that is right, at the query's own size."""
    (task,), query = evaluator.tasks({episode.name: episode.supports}), evaluator.query(episode.query)
    segmented, evidence = evaluator.segmenter.torch_engine.segment_with_evidence(query.taps, task)
    mask = mask_map(segmented.leads[0], query.size, Cut().threshold)
    target = np.zeros_like(mask, np.uint8)
    if episode.query in evaluator.pictures.classes[episode.name]:
        target = evaluator.pictures.mask(episode.name, episode.query)
    mask &= target != IGNORE
    right = float((target[mask] == 1).mean()) if mask.any() else -1.0
    return evidence, right


def fit_scores(model: IIR, observed: Observed) -> IIR:
    """A copy of the model with a head for presence and confidence, each by logistic regression.

    Presence is fitted to all predictions, by all but the lead, which comes last: how far the mask stands out says
    nothing of whether the object is there. Confidence is fitted to those with a mask where it is; its target is the
    share that is right.

    Args:
        model: with or without such a head.
        observed: predictions of it.

    Raises:
        ConfigError: the architecture cannot have that head.
        DatasetError: the network found next to nothing in all pictures.
    """
    fitted = IIR(replace(model.config, presence=True))
    fitted.load_state_dict(fitted.state_dict() | model.state_dict())
    masked = observed.masked
    if int(masked.sum()) < 2:
        raise DatasetError(
            f"{int(masked.sum())} of {int((observed.shown > 0).sum())} pictures with the object got a mask, and at "
            "least 2 are needed; calibrate a trained network, on more episodes."
        )
    assert fitted.decoder.scores is not None
    likeness, bias = logistic_regression(observed.evidence[:, :-1], observed.shown)
    rows = (
        (F.pad(likeness, (0, 1)), bias),
        logistic_regression(observed.evidence[masked], observed.right[masked]),
    )
    with torch.no_grad():
        for i, (weight, bias) in enumerate(rows):
            fitted.decoder.scores.weight[i] = weight
            fitted.decoder.scores.bias[i] = bias
    return fitted.eval()


def logistic_regression(inputs: Tensor, labels: Tensor, *, decay: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weights ``(C,)`` and bias of the least cross entropy on ``inputs (M, C)`` and ``labels (M,)`` in [0, 1].

    ``decay`` holds back the squared weights of the inputs scaled to a standard deviation of 1.
    """
    mean, spread = inputs.mean(0), inputs.std(0).clamp_min(1e-6)
    scaled = ((inputs - mean) / spread).double()
    parameters = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = scaled @ parameters[:-1] + parameters[-1]
        loss = F.binary_cross_entropy_with_logits(logits, labels.double()) + decay * parameters[:-1].square().sum()
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
    with torch.inference_mode():
        presence, confidence = score_logits(observed.evidence.to(head.weight.device), head).sigmoid().cpu().numpy().T
    shown, masked = observed.shown.numpy() > 0, observed.masked.numpy()
    right = observed.right.numpy()[masked]
    if not masked.any():
        raise DatasetError(f"{pictures.name}: no picture with the object got a mask, so no confidence can be scored.")
    return PresenceScore(
        pictures.name,
        auroc(presence, shown),
        calibration_error(presence, shown.astype(np.float32)),
        calibration_error(confidence[masked], right),
        float(right.mean()),
        int(shown.sum()),
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
