"""Scores a segmenter on fixed episodes, at every picture's own size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from iir_sdk.atomic_write import write_atomically
from iir_sdk.model.backbone import Taps
from iir_sdk.model.state import SupportState, join_shots
from iir_sdk.preprocessing import restore
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.training.data.dataset import FewShotDataset
from iir_sdk.training.data.episodes import Episode, large_enough, sample_episodes
from iir_sdk.training.metrics import SegmentationScore


@dataclass(frozen=True)
class SetScore:
    """Score of one set.

    Attributes:
        name: of the set.
        miou: in [0, 1].
        fb_iou: in [0, 1].
        per_class: foreground IoU by class, in [0, 1].
        episodes: how many were scored.
        protocol: shots, seed, smallest object, what was predicted by.
    """

    name: str
    miou: float
    fb_iou: float
    per_class: dict[str, float]
    episodes: int
    protocol: dict[str, Any]


@dataclass(frozen=True)
class _Seen:
    taps: Taps
    size: tuple[int, int]


class Evaluator:
    """Runs episodes through a segmenter's own model and preprocessing; each support and query is encoded once.

    Args:
        segmenter: its supports are neither used nor changed.
        pictures: the set.
    """

    def __init__(self, segmenter: FewShotSegmenter, pictures: FewShotDataset) -> None:
        self.segmenter, self.pictures = segmenter, pictures
        self._seen: dict[str, _Seen] = {}
        self._supports: dict[tuple[str, str], SupportState] = {}

    def probability(self, episode: Episode) -> NDArray[np.float32]:
        """Foreground probability of the episode's query, ``(H, W)`` at its own size."""
        state = join_shots([self._support(episode.name, stem) for stem in episode.supports])
        with torch.inference_mode(), self.segmenter.autocast():
            query = self._query(episode.query)
            prediction = self.segmenter.model.decode(query.taps, state)
            probability: NDArray[np.float32] = restore(prediction.logits, query.size)[0].cpu().numpy()
            return probability

    def score(self, episodes: Sequence[Episode], *, threshold: float = 0.5) -> SegmentationScore:
        """Score episodes by thresholded probability."""
        score = SegmentationScore()
        for episode in tqdm(episodes, desc=self.pictures.name, unit="episode"):
            target = self.pictures.mask(episode.name, episode.query)
            score.add(episode.name, self.probability(episode) > threshold, target)
        return score

    def _support(self, name: str, stem: str) -> SupportState:
        if (name, stem) not in self._supports:
            pixels, mask = self.pictures.picture(stem), self.pictures.mask(name, stem) == 1
            self._supports[name, stem] = self.segmenter.encode(pixels, mask)
        return self._supports[name, stem]

    def _query(self, stem: str) -> _Seen:
        if stem not in self._seen:
            pixels = self.pictures.picture(stem)
            images = self.segmenter.preprocessing.image(pixels)[None].to(self.segmenter.device)
            images = self.segmenter.preprocessing.normalise(images)
            taps = self.segmenter.model.backbone(images.contiguous(memory_format=torch.channels_last))
            self._seen[stem] = _Seen(taps, (pixels.shape[0], pixels.shape[1]))
        return self._seen[stem]


def evaluate_set(
    segmenter: FewShotSegmenter,
    pictures: FewShotDataset,
    *,
    shots: int = 1,
    episodes: int = 1000,
    seed: int = 0,
    min_share: float = 0.01,
) -> SetScore:
    """MIoU and FB-IoU of one set (method, section 8).

    Args:
        segmenter: what is scored.
        pictures: the set, with the classes to score only.
        shots: supports of an episode.
        episodes: number of episodes, classes in turn.
        seed: of the episodes.
        min_share: smallest share of its picture that an object covers, as support and as query.

    Raises:
        DatasetError: no class has enough pictures.
    """
    stems = large_enough(pictures, min_share)
    drawn = sample_episodes(stems, shots=shots, count=episodes, seed=seed)
    score = Evaluator(segmenter, pictures).score(drawn)
    protocol = {
        "shots": shots,
        "seed": seed,
        "min_share": min_share,
        "classes": len(score.per_class),
        "checkpoint": segmenter.checkpoint.name,
        "sha256": segmenter.checkpoint.sha256,
        "input_pixels": segmenter.preprocessing.size,
        "scored_at": "own size",
    }
    return SetScore(pictures.name, score.miou, score.fb_iou, score.per_class, len(drawn), protocol)


def write_scores(path: Path, scores: Sequence[SetScore]) -> None:
    """Write scores and their mean mIoU as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    document = {"mean_miou": float(np.mean([s.miou for s in scores])), "sets": [asdict(s) for s in scores]}
    text = json.dumps(document, indent=1) + "\n"
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))
