"""The demo's few-shot jobs, run, and their side-by-side sheet: support, query, prior, result."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from iir_sdk.demo.job import Job
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.results.painting import painted
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.segmenter import FewShotSegmenter

TILE = (240, 200)
_GAP, _TITLE, _HEADER = 8, 26, 24
_INK, _PAPER, _QUIET = (30, 30, 36), (255, 255, 255), (120, 120, 130)
_STOPS = np.array([(20, 16, 60), (120, 28, 109), (220, 70, 70), (250, 160, 50), (252, 240, 150)], np.float32)


@dataclass(frozen=True)
class JobResult:
    """How a job went: its query's result, the mask's IoU in [0, 1], and milliseconds."""

    job: Job
    segmentation: Segmentation
    iou: float
    add_support_ms: float  # to encode the support, once
    predict_ms: float  # of one prediction after a first one


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


def draw_sheet(results: Sequence[JobResult]) -> Image.Image:
    """One row a job, four columns, with each job's IoU and milliseconds above it."""
    width = 4 * TILE[0] + 5 * _GAP
    row = _TITLE + TILE[1] + _GAP
    sheet = Image.new("RGB", (width, _HEADER + _GAP + row * len(results)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(("support", "query", "prior", "result")):
        draw.text((_column(column), _GAP), title, fill=_QUIET, font=_font(14))
    for i, result in enumerate(results):
        top = _HEADER + _GAP + i * row
        draw.text((_GAP, top + 2), result.job.title, fill=_INK, font=_font(15))
        figures = f"IoU {result.iou:.2f}   {result.predict_ms:.0f} ms"
        draw.text((width - _GAP, top + 2), figures, fill=_INK, font=_font(15), anchor="ra")
        for column, tile in enumerate(_tiles(result)):
            sheet.paste(_fitted(tile), (_column(column), top + _TITLE))
    return sheet


def _tiles(result: JobResult) -> tuple[Image.Image, Image.Image, Image.Image, Image.Image]:
    picture = load_picture(result.job.support)
    marked = painted(picture.pixels, (load_mask(result.job.support_mask, picture) == 1).astype(np.uint8), 0.5)
    segmentation = result.segmentation
    return marked, Image.fromarray(segmentation.image), _heat(segmentation.prior), segmentation.overlay()


def _heat(prior: NDArray[np.float32]) -> Image.Image:
    position = np.clip(prior, 0, 1) * (len(_STOPS) - 1)
    low = np.minimum(position.astype(int), len(_STOPS) - 2)
    share = (position - low)[..., None]
    return Image.fromarray((_STOPS[low] * (1 - share) + _STOPS[low + 1] * share).astype(np.uint8))


def _fitted(image: Image.Image) -> Image.Image:
    """Scaled to the tile, aspect kept, centred on paper."""
    scale = min(TILE[0] / image.width, TILE[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tile = Image.new("RGB", TILE, (244, 244, 247))
    tile.paste(image.resize(size, Image.Resampling.LANCZOS), ((TILE[0] - size[0]) // 2, (TILE[1] - size[1]) // 2))
    return tile


def _column(index: int) -> int:
    return _GAP + index * (TILE[0] + _GAP)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
