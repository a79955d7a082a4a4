"""Masks whose edges are drawn to those of the picture."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional as F

from iir_sdk import segment_folder
from iir_sdk.cli.segment import segment
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import ConfigError, PrecisionError
from iir_sdk.pictures.load import load_picture
from iir_sdk.results.full_size import mask_map
from iir_sdk.results.sharpening import sharpened
from iir_sdk.segmenting.run import FolderReport

JOBS = {job.name: job for job in read_jobs()}


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def guided_filter(probability: np.ndarray, colours: np.ndarray, radius: int = 3, penalty: float = 1e-3) -> np.ndarray:
    """``(4, h, w)``: a ridge regression for each window by itself, then the windows' means by what they explain."""
    size = probability.shape
    around = [(radius, radius)] * 2
    values = np.pad(probability, around, mode="edge")
    guide = np.stack([np.pad(channel, around, mode="edge") for channel in colours], 2)
    fits = np.empty((5, *size))
    for row, column in np.ndindex(*size):
        window = slice(row, row + 2 * radius + 1), slice(column, column + 2 * radius + 1)
        seen, wanted = guide[window].reshape(-1, 3), values[window].ravel()
        off = seen - seen.mean(0)
        slopes = np.linalg.solve(off.T @ off / len(off) + penalty * np.eye(3), off.T @ wanted / len(off))
        explained = slopes @ (off.T @ wanted) / len(off) / wanted.var()
        fits[:, row, column] = explained * np.array([*slopes, wanted.mean() - slopes @ seen.mean(0), 1])
    wide = np.pad(fits, [(0, 0), *around], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2 * radius + 1,) * 2, (1, 2))
    means = windows.mean((3, 4))
    means[3] += (1 - means[4]) * probability
    return means[:4]


def test_it_is_the_fast_guided_filter(rng):
    lead = (3 * rng.normal(size=(6, 7))).astype(np.float32)
    pixels = rng.integers(0, 256, (48, 56, 3), np.uint8)
    coarse = np.asarray(Image.fromarray(pixels).resize((14, 12), Image.Resampling.BILINEAR), np.float64) / 255
    fine = F.interpolate(torch.from_numpy(lead)[None, None].double(), (12, 14), mode="bilinear")[0, 0]
    fits = torch.from_numpy(guided_filter(fine.sigmoid().numpy(), np.moveaxis(coarse, 2, 0)))
    slopes = F.interpolate(fits[None], pixels.shape[:2], mode="bilinear")[0]
    colours = torch.from_numpy(pixels).movedim(2, 0) / 255
    expected = ((slopes[:3] * colours).sum(0) + slopes[3]).clip(1e-6, 1 - 1e-6)
    (finer,) = sharpened(lead[None], pixels)
    plain = F.interpolate(torch.from_numpy(lead)[None, None], pixels.shape[:2], mode="bilinear")[0, 0]
    # Shifted until as much is masked as before.
    odds = np.sort(torch.logit(expected).ravel())
    shift = odds[-1 - int((plain > 0).sum())]
    np.testing.assert_allclose(torch.from_numpy(finer + shift).sigmoid(), expected, atol=2e-4)


def test_a_blurred_answer_gets_the_pictures_edge():
    truth = np.zeros((240, 320), bool)
    truth[63:171, 77:209] = True
    pixels = np.where(truth[..., None], np.uint8([200, 60, 40]), np.uint8([60, 90, 150]))
    share = np.asarray(Image.fromarray(truth.astype(np.float32)).resize((30, 30), Image.Resampling.BILINEAR))
    lead = (6 * share - 3).astype(np.float32)
    before = mask_map(lead, truth.shape, 0.5)
    after = mask_map(sharpened(lead[None], pixels)[0], truth.shape, 0.5)
    assert iou(before, truth) < 0.99 < iou(after, truth)


def test_where_the_picture_shows_nothing_the_answer_stays_about_as_it_is():
    lead = (8 * np.asarray(Image.fromarray(np.eye(5, dtype=np.float32)).resize((30, 30))) - 4).astype(np.float32)
    grey = np.full((240, 240, 3), 128, np.uint8)
    smooth = mask_map(sharpened(lead[None], grey)[0], (240, 240), 0.5)
    assert iou(smooth, mask_map(lead, (240, 240), 0.5)) > 0.97


def test_thin_things_keep_their_size(rng):
    """Without the shift a fit sees mostly what is around them, and a third of them was gone."""
    lead = np.full((60, 60), -5, np.float32)
    lead[10:50:8, 5:55] = 1
    pixels = (rng.normal(110, 12, (480, 480, 3)) + 50 * (np.arange(480) % 64 < 5)[:, None, None]).clip(0, 255)
    before = mask_map(lead, (480, 480), 0.5)
    after = mask_map(sharpened(lead[None], pixels.astype(np.uint8))[0], (480, 480), 0.5)
    assert abs(after.sum() / before.sum() - 1) < 0.01 and (before != after).any()


@pytest.mark.parametrize("odds", [-3, 3])
def test_where_all_is_the_same_there_is_no_edge_to_draw(rng, odds):
    lead = (odds + 0.5 * rng.random((60, 60))).astype(np.float32)
    pixels = rng.integers(0, 256, (480, 480, 3), np.uint8)
    (finer,) = sharpened(lead[None], pixels)
    np.testing.assert_allclose(finer[4::8, 4::8], lead, atol=0.5)
    assert (finer > 0).all() == (odds > 0)


@pytest.mark.parametrize(
    ("picture", "grid", "finer"),
    [
        ((3000, 2000), (60, 60), (480, 480)),
        ((300, 400), (60, 60), (300, 400)),
        ((50, 60), (60, 60), (60, 60)),
        ((20, 900), (60, 60), (20, 480)),
        ((1, 1), (60, 60), (60, 60)),
        ((4000, 3000), (800, 600), (4000, 3000)),
        ((5000, 5000), (1500, 1500), (3464, 3464)),
    ],
)
def test_the_finer_grid_is_bounded_by_the_picture_the_input_and_memory(picture, grid, finer):
    lead = np.zeros((1, *grid), np.float32)
    pixels = np.zeros((*picture, 3), np.uint8)
    assert sharpened(lead, pixels).shape == (1, *finer)


def test_it_is_off_by_default_and_draws_better_edges_on_the_demo(embedded):
    gains = []
    for job in JOBS.values():
        embedded.add_support(job.support, job.support_mask)
        plain, sharp = embedded.predict(job.query), embedded.predict(job.query, sharpen=True)
        assert np.array_equal(plain.mask, embedded.predict(job.query, sharpen=False).mask)
        embedded.clear_supports()
        assert sharp.score == plain.score and "sharpening" in sharp.timings and "sharpening" not in plain.timings
        gains.append(iou(sharp.mask, job.truth()) - iou(plain.mask, job.truth()))
    assert np.mean(gains) > 0 and min(gains) > -0.02, gains


def test_every_map_of_a_sharpened_result_is_of_the_same_answer(embedded):
    names = list(JOBS)[:2]
    for name in names:
        embedded.add_support(JOBS[name].support, JOBS[name].support_mask, label=name)
    result = embedded.predict(JOBS[names[0]].query, threshold=0.4, sharpen=True)
    (again,) = embedded.predict_many([JOBS[names[0]].query], threshold=0.4, sharpen=True)
    embedded.clear_supports()
    assert np.array_equal(result.masks, again.masks)
    assert np.array_equal(result.masks, result.probabilities > np.float32(0.4))
    assert np.array_equal(pickle.loads(pickle.dumps(result)).masks, result.masks)
    for i, name in enumerate(names):
        assert np.array_equal(result[name].mask, result.masks[i])
        assert not (result.label_map == i + 1)[~result.masks[i]].any()
    assert abs(float(repr(result[names[0]]).split(": ")[1].split("%")[0]) - 100 * result.masks[0].mean()) < 0.3


def test_grey_and_deep_pictures_are_sharpened_as_they_are_shown(embedded, tmp_path):
    job = JOBS["coins"]
    grey = np.asarray(Image.open(job.query).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    embedded.add_support(job.support, job.support_mask)
    of_grey = embedded.predict(grey, sharpen=True)
    of_deep = embedded.predict(load_picture(tmp_path / "deep.png").pixels, sharpen=True)
    embedded.clear_supports()
    assert iou(of_grey.mask, job.truth()) > 0.8 and iou(of_deep.mask, of_grey.mask) > 0.95


def test_tiles_are_sharpened_as_one(embedded):
    job = JOBS["coins"]
    pixels, truth = (
        np.tile(each, (2, 2, *[1] * (each.ndim - 2))) for each in (load_picture(job.query).pixels, job.truth())
    )
    embedded.add_support(job.support, job.support_mask)
    result = embedded.predict(pixels, tile=300, sharpen=True)
    embedded.clear_supports()
    assert result.leads.shape[1:] == pixels.shape[:2] and iou(result.mask, truth) > 0.85


def test_an_overflow_is_told_and_not_smoothed_away(embedded, monkeypatch):
    job = JOBS["coins"]
    embedded.add_support(job.support, job.support_mask)
    segment = embedded.engine.segment

    def overflown(pictures, tasks):
        outcomes, timings = segment(pictures, tasks)
        return [replace(o, leads=np.full_like(o.leads, np.inf)) for o in outcomes], timings

    monkeypatch.setattr(embedded.engine, "segment", overflown)
    try:
        with pytest.raises(PrecisionError):
            embedded.predict(job.query, sharpen=True)
    finally:
        embedded.clear_supports()


def test_what_is_neither_on_nor_off_is_told(embedded):
    job = JOBS["coins"]
    embedded.add_support(job.support, job.support_mask)
    try:
        with pytest.raises(ConfigError, match="sharpen='yes' must be True or False"):
            embedded.predict(job.query, sharpen="yes")
    finally:
        embedded.clear_supports()


def test_folders_are_masked_as_predict_does(embedded, tmp_path):
    job = JOBS["eye"]
    arguments = {"supports": [(job.support, job.support_mask)], "segmenter": embedded, "formats": ["masks"]}
    segment_folder([job.query], tmp_path / "out", sharpen=True, **arguments)
    embedded.add_support(job.support, job.support_mask)
    expected = embedded.predict(job.query, sharpen=True).mask
    embedded.clear_supports()
    (file,) = (tmp_path / "out" / "masks").rglob("*.png")
    assert np.array_equal(np.asarray(Image.open(file)) > 0, expected)


@pytest.mark.parametrize(("option", "sharpen"), [((), False), (("--sharpen",), True), (("--no-sharpen",), False)])
def test_the_verb_hands_it_on(monkeypatch, tmp_path, option, sharpen):
    told = {}

    def segment_folder(queries, **settings):
        told.update(settings)
        return FolderReport(tmp_path, (), 0, 0, {})

    monkeypatch.setattr("iir_sdk.segmenting.folder.segment_folder", segment_folder)
    outcome = CliRunner().invoke(segment, ["photos", "--out", str(tmp_path), *option], catch_exceptions=False)
    assert outcome.exit_code == 0 and told["sharpen"] is sharpen
