"""Predictions on queries that show an episode's object and on such that do not, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from iir_sdk.data.dataset import IGNORE, FewShotDataset
from iir_sdk.data.episodes import Episode
from iir_sdk.data.folder import JoinedSets
from iir_sdk.evaluation.absence import absent_across, absent_episodes
from iir_sdk.evaluation.evaluate import Evaluator, Protocol, draw_episodes
from iir_sdk.results.full_size import mask_map
from iir_sdk.results.segmentation import Cut
from iir_sdk.segmenter import FewShotSegmenter


class Observed(NamedTuple):
    """What is known of ``M`` predictions.

    Attributes:
        evidence: ``(M, 10)`` of :func:`~iir_sdk.model.presence.prediction_evidence`.
        shown: ``(M,)``, 1 where the query shows the object, else 0.
        right: ``(M,)`` in [0, 1], share of the mask that is of the object; -1 where it is empty.
        iou: ``(M,)`` of the mask in [0, 1]; 0 where the object is not shown.
        classes: each one's.
    """

    evidence: Tensor
    shown: Tensor
    right: Tensor
    iou: Tensor
    classes: tuple[str, ...]

    @property
    def masked(self) -> Tensor:
        """``(M,)`` bool, those with a mask where the object is shown."""
        return (self.shown > 0) & (self.right >= 0)

    def of(self, chosen: Tensor) -> Observed:
        """Some of them, by ``chosen (M,)`` bool."""
        classes = tuple(name for name, wanted in zip(self.classes, chosen.tolist(), strict=True) if wanted)
        return Observed(self.evidence[chosen], self.shown[chosen], self.right[chosen], self.iou[chosen], classes)


def present_and_absent(segmenter: FewShotSegmenter, pictures: FewShotDataset, protocol: Protocol) -> Observed:
    """Predictions on as many pictures of a set that show the object as on such that do not.

    The protocol's first seed counts, and the segmenter must run on PyTorch. A DatasetError where no class has enough
    pictures, a NoAbsenceError where all pictures show a class.
    """
    present = _present(pictures, protocol)
    return _observed(Evaluator(segmenter, pictures), present, absent_episodes(pictures, present, protocol.seeds[0]))


def observe_among(
    segmenter: FewShotSegmenter, sets: JoinedSets, name: str, protocol: Protocol, *, complete: bool
) -> Observed:
    """Predictions on one of several sets, and on queries that do not show its classes.

    Those are pictures of the set itself where its masks are ``complete``, all that there are of its classes; else of
    other sets, as :func:`~iir_sdk.evaluation.absence.absent_across` has them, and perhaps none. Raises as
    :func:`present_and_absent`.
    """
    pictures = sets.sets[name]
    drawn = _present(pictures, protocol)
    present = [_in_set(name, e) for e in drawn]
    if complete:
        absent = [_in_set(name, e) for e in absent_episodes(pictures, drawn, protocol.seeds[0])]
    else:
        absent = absent_across(sets, present, protocol.seeds[0])
    return _observed(Evaluator(segmenter, sets), present, absent)


def _present(pictures: FewShotDataset, protocol: Protocol) -> list[Episode]:
    seed = protocol.seeds[0]
    return draw_episodes(pictures, replace(protocol, seeds=(seed,)))[seed]


def _in_set(name: str, episode: Episode) -> Episode:
    """An episode of one set as one of sets that are joined."""
    supports = tuple(f"{name}/{key}" for key in episode.supports)
    return Episode(f"{name}/{episode.name}", supports, f"{name}/{episode.query}")


def _observed(evaluator: Evaluator, present: Sequence[Episode], absent: Sequence[Episode]) -> Observed:
    both = [*present, *absent]
    seen = [_observe(evaluator, e) for e in tqdm(both, desc=present[0].name, unit="episode")]
    evidence, right, iou = zip(*seen, strict=True)
    shown = torch.tensor([1.0] * len(present) + [0.0] * len(absent))
    return Observed(torch.stack(evidence), shown, torch.tensor(right), torch.tensor(iou), tuple(e.name for e in both))


def _observe(evaluator: Evaluator, episode: Episode) -> tuple[Tensor, float, float]:
    """Evidence, the share of the mask that is right, and its IoU, at the query's own size."""
    (task,), query = evaluator.tasks({episode.name: episode.supports}), evaluator.query(episode.query)
    segmented, evidence = evaluator.segmenter.torch_engine.segment_with_evidence(query.features, task)
    mask = mask_map(segmented.leads[0], query.size, Cut().threshold)
    target = np.zeros_like(mask, np.uint8)
    if episode.query in evaluator.pictures.classes.get(episode.name, ()):
        target = evaluator.pictures.mask(episode.name, episode.query)
    mask &= target != IGNORE
    both, either = int((mask & (target == 1)).sum()), int((mask | (target == 1)).sum())
    return evidence, both / int(mask.sum()) if mask.any() else -1.0, both / max(1, either)
