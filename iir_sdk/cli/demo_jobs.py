"""The demo's few-shot jobs: one support picture with its mask, one query with its true mask."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from iir_sdk.demo.job import Job
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.segmenter import FewShotSegmenter


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
