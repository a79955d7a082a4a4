"""Masks carried from frame to frame along what looks alike to the network, by real weights."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.results.segmentation import Cut
from iir_sdk.video.memory import Memory, Recall
from iir_sdk.video.motion import Seen, carried_by_looks
from iir_sdk.video.reading import Still

JOBS = {job.name: job for job in read_jobs()}
FACE = load_picture(JOBS["face"].query).pixels
TRUTH = JOBS["face"].truth()


@pytest.fixture(scope="module")
def taught() -> FewShotSegmenter:
    segmenter = FewShotSegmenter(device="cpu", threads=1)
    segmenter.add_support(JOBS["face"].support, JOBS["face"].support_mask)
    return segmenter


def seen(segmenter, pixels: np.ndarray, mask: np.ndarray | None = None) -> Seen:
    _, segmented, looks, _ = segmenter.segment_beside(Picture(pixels), [], labels=None, cut=Cut())
    maps = segmented.leads
    if mask is not None:
        height, width = maps.shape[1:]
        maps = np.where(np.asarray(Image.fromarray(mask).resize((width, height))), 3, -3)[None].astype(np.float32)
    return Seen(maps, looks, mask is not None)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


def enlarged(lead: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(lead).resize(size[::-1], Image.Resampling.BILINEAR))


def test_looks_are_unit_vectors_of_places(taught):
    looks = seen(taught, FACE).looks
    assert looks.shape[1:] == (20, 20) and looks.dtype == np.float32
    assert np.allclose((looks**2).sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("shift", [(0, 0), (40, 25), (-30, 60)])
def test_a_drawn_mask_moves_with_what_it_shows(taught, shift):
    before = seen(taught, FACE, TRUTH)
    moved, truth = (np.roll(array, shift, (0, 1)) for array in (FACE, TRUTH))
    (carried,) = carried_by_looks([before], seen(taught, moved).looks)
    assert iou(enlarged(carried, truth.shape) > 0, truth) > 0.6 and np.abs(carried).max() <= 3 + 1e-4


def test_another_scene_carries_nothing(taught):
    before = seen(taught, FACE, TRUTH)
    others = [load_picture(job.query).pixels for name, job in JOBS.items() if name not in ("face", "flag")]
    assert not any(carried_by_looks([before], seen(taught, other).looks) is not None for other in others)


def test_a_cut_in_a_video_starts_anew_and_the_way_back_finds_the_drawn_mask(taught):
    memory, coins = Memory(taught, None, Cut(), Recall(0, 1.0)), load_picture(JOBS["coins"].query).pixels
    results = [
        memory.segment(Still(i, 0.1 * i, Picture(pixels)), {"object": TRUTH} if i == 0 else None)
        for i, pixels in enumerate((FACE, coins, np.roll(FACE, 20, 1)))
    ]
    assert np.allclose(results[1].leads, taught.predict(coins).leads, atol=1e-4)
    alone, truth = taught.predict(np.roll(FACE, 20, 1)).mask, np.roll(TRUTH, 20, 1)
    assert iou(results[2].mask, truth) > iou(alone, truth)
