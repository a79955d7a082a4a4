"""Maps carried from frame to frame along what looks alike."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from iir_sdk.demo.job import read_jobs
from iir_sdk.pictures.load import load_picture
from iir_sdk.video.motion import carried, colours_of

JOBS = {job.name: job for job in read_jobs()}
PICTURE = np.asarray(Image.fromarray(load_picture(JOBS["coins"].query).pixels).resize((420, 420)))


def view(x: int, y: int) -> np.ndarray:
    """A part of 300 pixels, so that 10 are a cell."""
    return PICTURE[60 + y : 360 + y, 60 + x : 360 + x]


@pytest.mark.parametrize(("x", "y"), [(0, 0), (20, 0), (0, -20), (20, 10)])
def test_a_map_moves_with_the_picture(x, y):
    rows, columns = np.mgrid[:60, :60]
    before = np.where((rows - 30) ** 2 + (columns - 30) ** 2 < 100, 3, -3).astype(np.float32)
    (moved,) = carried(before[None], colours_of(view(0, 0)), colours_of(view(x, y)))
    inside = moved > 0
    centre = np.array([rows[inside].mean(), columns[inside].mean()])
    assert np.abs(centre - (30 - y / 5, 30 - x / 5)).max() < 3
    assert 0.5 < inside.sum() / (before > 0).sum() < 1.6 and np.abs(moved).max() <= 3 + 1e-5


def test_light_may_change():
    dark = (view(0, 0) * 0.6).astype(np.uint8)
    assert np.abs(colours_of(view(0, 0)) - colours_of(dark)).mean() < 0.02


def test_pictures_that_have_nothing_in_common_are_of_another_scene():
    maps, colours = np.ones((1, 60, 60), np.float32), colours_of(load_picture(JOBS["eye"].query).pixels)
    assert not carried(maps, colours, colours_of(view(0, 0))).any()
    assert np.allclose(carried(maps, colours, colours), 1, atol=1e-4)


def test_maps_of_several_labels_are_carried_each_by_itself():
    maps = np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)
    before, now = colours_of(view(0, 0)), colours_of(view(10, 0))
    together = carried(maps, before, now)
    assert together.shape == maps.shape
    assert np.allclose(together, np.concatenate([carried(each[None], before, now) for each in maps]), atol=1e-5)
