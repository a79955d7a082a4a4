"""The demo's few-shot jobs: one support picture with its mask, one query with its true mask."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iir_sdk.images import load_mask, load_picture
from iir_sdk.result import Segmentation

if TYPE_CHECKING:
    from iir_sdk.segmenter import FewShotSegmenter

PICTURES = Path(__file__).parent / "pictures"


@dataclass(frozen=True)
class Job:
    """One few-shot job on pictures that travel with the package.

    Attributes:
        name: short, also the prefix of its files.
        title: one line.
        source: who made the pictures.
        license: of the pictures.
        masks: how the true masks were made.
    """

    name: str
    title: str
    source: str
    license: str
    masks: str

    @property
    def support(self) -> Path:
        """The support picture."""
        return PICTURES / f"{self.name}_support.jpg"

    @property
    def support_mask(self) -> Path:
        """Its mask."""
        return PICTURES / f"{self.name}_support_mask.png"

    @property
    def query(self) -> Path:
        """The query picture."""
        return PICTURES / f"{self.name}_query.jpg"

    def truth(self) -> NDArray[np.bool_]:
        """The query's true mask, ``(H, W)``."""
        return load_mask(PICTURES / f"{self.name}_query_mask.png", load_picture(self.query))


@dataclass(frozen=True)
class JobResult:
    """How a job went.

    Attributes:
        job: the job.
        segmentation: of the query.
        iou: of its mask with the true one, in [0, 1].
        add_support_ms: milliseconds to encode the support, once.
        predict_ms: milliseconds of one prediction after a first one.
    """

    job: Job
    segmentation: Segmentation
    iou: float
    add_support_ms: float
    predict_ms: float


def read_jobs() -> tuple[Job, ...]:
    """All jobs of the demo."""
    records = json.loads((PICTURES / "jobs.json").read_text(encoding="utf-8"))
    return tuple(Job(**record) for record in records)


def run_jobs(segmenter: FewShotSegmenter, jobs: Iterable[Job]) -> Iterator[JobResult]:
    """Run each job by itself; the segmenter's own supports are neither used nor changed."""
    for job in jobs:
        label = f"demo: {job.name}"
        started = time.perf_counter()
        support = segmenter.add_support(job.support, job.support_mask, label=label)
        added = time.perf_counter()
        # The first prediction at a size pays for memory that later ones find ready.
        segmenter.predict(job.query, labels=[label])
        warm = time.perf_counter()
        result = segmenter.predict(job.query, labels=[label])
        ended = time.perf_counter()
        segmenter.remove_support(support)
        truth = job.truth()
        iou = float((result.mask & truth).sum() / (result.mask | truth).sum())
        yield JobResult(job, result, iou, (added - started) * 1000, (ended - warm) * 1000)
