"""Large pictures with small things in them: sheets and strips made of the demo's coins."""

from __future__ import annotations

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import ConfigError
from iir_sdk.pictures.load import load_picture
from tests.lowest_iou import LOWEST_IOU

JOBS = {job.name: job for job in read_jobs()}
COINS = JOBS["coins"]


@pytest.fixture(scope="module")
def segmenter():
    segmenter = FewShotSegmenter()
    segmenter.add_support(COINS.support, COINS.support_mask, label="coin")
    return segmenter


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def sheet(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tile(load_picture(COINS.query).pixels, (rows, columns, 1)), np.tile(COINS.truth(), (rows, columns))


def test_what_is_too_small_in_the_whole_is_found_in_tiles(segmenter):
    pixels, truth = sheet(3, 3)
    whole, closer = segmenter.predict(pixels), segmenter.predict(pixels, tile="auto")
    assert iou(closer.mask, truth) >= max(LOWEST_IOU["coins"], iou(whole.mask, truth) + 0.3)
    assert closer.mask.shape == closer.probability.shape == closer.prior.shape == truth.shape
    assert closer.score > 0.95 and "tiles" in closer.timings
    assert max(closer.leads.shape) > max(whole.leads.shape)


def test_a_strip_is_seen_in_tiles_of_a_given_side(segmenter):
    pixels, truth = sheet(1, 5)
    (closer,) = segmenter.predict_many([pixels], tile=300, overlap=0.1)
    assert iou(closer.mask, truth) >= LOWEST_IOU["coins"]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_ordinary_pictures_are_left_as_they_are(segmenter, job):
    whole, automatic = (segmenter.predict(job.query, tile=tile) for tile in (None, "auto"))
    assert np.array_equal(whole.leads, automatic.leads)
    assert (whole.score, whole.confidence) == (automatic.score, automatic.confidence)


def test_a_picture_that_shows_its_object_large_is_left_as_it_is(segmenter):
    pixels = load_picture(COINS.query).pixels.repeat(3, 0).repeat(3, 1)
    whole, automatic = (segmenter.predict(pixels, tile=tile) for tile in (None, "auto"))
    assert iou(automatic.mask, np.kron(COINS.truth(), np.ones((3, 3), bool))) >= LOWEST_IOU["coins"]
    assert iou(whole.mask, automatic.mask) > 0.9


def test_a_tile_of_the_whole_picture_says_what_the_whole_does(segmenter):
    whole, tiled = (segmenter.predict(COINS.query, tile=tile) for tile in (None, 5000))
    np.testing.assert_allclose(whole.leads, tiled.leads, atol=1e-4)


def test_labels_of_different_sizes_are_looked_for_at_their_own_scale(segmenter):
    face = JOBS["face"]
    both = FewShotSegmenter(segmenter.engine)
    both.add_support(face.support, face.support_mask, label="face")
    both.add_support(COINS.support, COINS.support_mask, label="coin")
    pixels, truth = sheet(2, 3)
    result = both.predict(pixels, tile="auto")
    assert result.labels == ("face", "coin")
    assert iou(result["coin"].mask, truth) >= LOWEST_IOU["coins"]
    assert result["face"].score < 0.5


@pytest.mark.parametrize("tile", ["all", 31, 0, -5, True, 300.5, float("nan")])
def test_a_tile_that_is_none_is_refused(segmenter, tile):
    with pytest.raises(ConfigError, match="tile="):
        segmenter.predict(COINS.query, tile=tile)


@pytest.mark.parametrize("overlap", [-0.1, 0.6, 1, "half", True, float("nan")])
def test_an_overlap_out_of_its_range_is_refused(segmenter, overlap):
    with pytest.raises(ConfigError, match="overlap="):
        segmenter.predict_many([COINS.query], tile=300, overlap=overlap)


def test_a_large_picture_without_the_object_gets_no_more_of_it(segmenter):
    grass = np.tile(load_picture(JOBS["grass"].query).pixels, (2, 3, 1))
    whole, automatic = (segmenter.predict(grass, tile=tile) for tile in (None, "auto"))
    assert np.array_equal(whole.mask, automatic.mask) and automatic.score == whole.score
