"""Fits and scores the head that says whether a query shows the object."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from iir_sdk.errors import ConfigError, DatasetError
from iir_sdk.model.iir import IIR
from iir_sdk.model.presence import presence_evidence, presence_logit
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.training.data.dataset import FewShotDataset, source_of
from iir_sdk.training.data.episodes import Episode
from iir_sdk.training.evaluate import Evaluator, Protocol, draw_episodes

_BINS = 10


@dataclass(frozen=True)
class PresenceScore:
    """How well scores tell pictures with the object from those without, half of each.

    Attributes:
        name: of the set.
        auroc: probability that a picture with the object scores above one without, in [0, 1].
        ece: expected calibration error over ten bins (Guo et al., ICML 2017), in [0, 1].
        episodes: of each kind.
    """

    name: str
    auroc: float
    ece: float
    episodes: int


def absent_episodes(pictures: FewShotDataset, episodes: Sequence[Episode], seed: int) -> list[Episode]:
    """The same supports, each with a query that does not show their class: a picture of another one.

    Raises:
        DatasetError: every picture shows the class.
    """
    rng = random.Random(seed)
    shows = {name: {source_of(key) for key in keys} for name, keys in pictures.classes.items()}
    every = sorted({key for keys in pictures.classes.values() for key in keys})
    without = {name: [key for key in every if source_of(key) not in shows[name]] for name in shows}
    for name in {e.name for e in episodes}:
        if not without[name]:
            raise DatasetError(f"{pictures.name}: every picture shows {name!r}; absence needs some that do not.")
    return [replace(e, query=rng.choice(without[e.name])) for e in episodes]


def present_and_absent(
    segmenter: FewShotSegmenter, pictures: FewShotDataset, protocol: Protocol
) -> tuple[Tensor, Tensor]:
    """Evidence ``(2 M, 2)`` of :func:`~iir_sdk.model.presence.presence_evidence`, and 1 where the object is shown.

    Args:
        segmenter: runs on PyTorch.
        pictures: the set.
        protocol: shots, episodes, the first of its seeds, smallest share.

    Raises:
        DatasetError: no class has enough pictures, or all show it.
    """
    seed = protocol.seeds[0]
    present = draw_episodes(pictures, replace(protocol, seeds=(seed,)))[seed]
    evaluator = Evaluator(segmenter, pictures)
    both = [*present, *absent_episodes(pictures, present, seed)]
    evidence = torch.stack([_evidence(evaluator, e) for e in tqdm(both, desc=pictures.name, unit="episode")])
    return evidence, torch.tensor([1.0] * len(present) + [0.0] * len(present))


@torch.inference_mode()
def _evidence(evaluator: Evaluator, episode: Episode) -> Tensor:
    engine = evaluator.segmenter.torch_engine
    with engine.autocast():
        (task,) = engine.prepare([evaluator.task(episode)])
        query = engine.network.read_query(evaluator.taps(episode))
        found = engine.network.decode(query, task.state)
        return presence_evidence(query, task.state, found.shot_weights, found.logits)[0].float().cpu()


def fit_presence(model: IIR, evidence: Tensor, shown: Tensor) -> IIR:
    """A copy of the model with a presence head, by logistic regression.

    Args:
        model: with or without such a head.
        evidence: ``(M, 2)``.
        shown: ``(M,)`` in {0, 1}.

    Raises:
        ConfigError: the architecture cannot have that head.
    """
    fitted = IIR(replace(model.config, presence=True))
    fitted.load_state_dict(fitted.state_dict() | model.state_dict())
    assert fitted.decoder.presence is not None
    weight, bias = logistic_regression(evidence, shown)
    with torch.no_grad():
        fitted.decoder.presence.weight.copy_(weight[None])
        fitted.decoder.presence.bias.copy_(bias[None])
    return fitted.eval()


def logistic_regression(inputs: Tensor, labels: Tensor, *, decay: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weights ``(C,)`` and bias of the least cross entropy on ``inputs (M, C)`` and ``labels (M,)`` in {0, 1}.

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
    """Score a checkpoint's presence head on pictures with and without the object.

    Raises:
        ConfigError: the checkpoint has no such head.
        DatasetError: as :func:`present_and_absent`.
    """
    head = segmenter.torch_engine.network.decoder.presence
    if head is None:
        raise ConfigError(f"checkpoint {segmenter.checkpoint.name!r} has no presence head; fit one: iir-sdk calibrate.")
    evidence, shown = present_and_absent(segmenter, pictures, protocol)
    with torch.inference_mode():
        probability = presence_logit(evidence.to(head.weight.device), head).sigmoid().cpu().numpy()
    labels = shown.numpy() > 0.5
    return PresenceScore(
        pictures.name, auroc(probability, labels), calibration_error(probability, labels), len(shown) // 2
    )


def auroc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Share of pairs of a positive and a negative in which the positive scores higher; ties count half."""
    order = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(order[2])
    ranks = (ends - (order[2] - 1) / 2)[order[1].reshape(-1)]
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def calibration_error(probability: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Mean gap between stated probability and observed share over ten bins of equal width, weighted by their size."""
    bins = np.clip((probability * _BINS).astype(int), 0, _BINS - 1)
    gaps = [
        abs(float(probability[bins == b].mean()) - float(positive[bins == b].mean())) * float((bins == b).mean())
        for b in np.unique(bins)
    ]
    return float(sum(gaps))
