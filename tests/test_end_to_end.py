"""The main job with the real embedded weights, on the real pictures of the demo."""

from __future__ import annotations

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.cli.demo_sheet import draw_sheet, run_jobs
from iir_sdk.demo.job import FAILURES, PICTURES, read_jobs
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from tests.lowest_iou import LOWEST_IOU, LOWEST_MEAN


@pytest.fixture(scope="module")
def results(embedded):
    return {r.job.name: r for r in run_jobs(embedded, read_jobs())}


@pytest.mark.parametrize("folder", [PICTURES, FAILURES], ids=["demo", "failures"])
def test_every_job_states_source_and_licence(folder):
    jobs = read_jobs(folder)
    assert 4 <= len(jobs) <= 6
    for job in jobs:
        assert job.source
        assert job.license
        assert job.masks
        load_mask(job.support_mask, load_picture(job.support))
        job.truth()
    assert sum(p.stat().st_size for p in folder.iterdir()) < 700_000


def test_the_objects_are_found(results):
    for name, bound in LOWEST_IOU.items():
        assert results[name].iou >= bound, name
    assert np.mean([r.iou for r in results.values()]) >= LOWEST_MEAN


def test_the_faster_checkpoint_finds_most_of_them():
    faster = FewShotSegmenter("iir-lite0", device="cpu")
    assert faster.preprocessing.size < FewShotSegmenter(device="cpu").preprocessing.size
    ious = {r.job.name: r.iou for r in run_jobs(faster, read_jobs())}
    assert np.mean(list(ious.values())) >= 0.79
    assert min(ious.values()) >= 0.5


def test_what_is_shown_as_a_failure_is_one(embedded):
    """Once a checkpoint does these well, the model card should no longer say that it does not."""
    ious = {r.job.name: r.iou for r in run_jobs(embedded, read_jobs(FAILURES))}
    assert set(ious) == {"vessels", "galaxies", "camouflage", "text"}
    assert max(ious.values()) < 0.6, ious


def test_scores_tell_what_is_there_from_what_is_not(embedded):
    """Every label asked of every picture: its own is there, hardly any other (two pictures show a face and a flag)."""
    jobs = read_jobs()
    try:
        for job in jobs:
            embedded.add_support(job.support, job.support_mask, label=job.name)
        found = {job.name: embedded.predict(job.query, absent_below=0.5) for job in jobs}
    finally:
        embedded.clear_supports()
    together = {"face", "flag"}
    others = [
        float(found[picture][label].score)
        for picture in found
        for label in found
        if label != picture and {label, picture} != together
    ]
    assert all(found[name][name].score > 0.9 for name in found)
    assert np.mean(others) < 0.35
    assert np.mean([score > 0.5 for score in others]) < 0.2
    for picture, result in found.items():
        for label in found:
            assert result[label].score >= 0.5 or not result[label].mask.any(), (picture, label)
        assert result[picture].mask.any()


def test_masks_come_at_the_querys_own_size(results):
    for result in results.values():
        assert result.segmentation.mask.shape == load_picture(result.job.query).size


def test_the_demo_leaves_no_support_behind(embedded, results):
    assert len(embedded.supports) == 0


def test_the_sheet_has_a_row_for_each_job(results):
    sheet = draw_sheet(list(results.values()))
    assert sheet.height > 200 * len(results)


def test_more_shots_and_saved_supports_serve_real_pictures(embedded, results, tmp_path):
    jobs = {job.name: job for job in read_jobs()}
    face = jobs["face"]
    try:
        embedded.add_support(face.support, face.support_mask, label="face")
        flag = jobs["flag"]
        embedded.add_support(flag.support, flag.support_mask, label="flag")
        both = embedded.predict(face.query)
        # Two things in one picture: the same as one by one, but for rounding, and a map that keeps them apart.
        for label in ("face", "flag"):
            alone = embedded.predict(face.query, labels=[label])
            np.testing.assert_allclose(both[label].probability, alone.probability, atol=1e-4)
            decided = np.abs(alone.probability - 0.5) > 1e-4
            assert np.array_equal(both[label].mask[decided], alone.mask[decided])
        assert set(np.unique(both.label_map)) == {0, 1, 2}
        embedded.save_supports(tmp_path / "supports.safetensors")
        # Kept small enough to hold thousands: a state is under one megabyte.
        assert (tmp_path / "supports.safetensors").stat().st_size < 2_000_000
        assert all(s.nbytes < 1_000_000 for s in embedded.supports)
        embedded.clear_supports()
        embedded.load_supports(tmp_path / "supports.safetensors")
        again = embedded.predict(face.query, labels=["face"])
        assert np.array_equal(again.mask, both["face"].mask)
    finally:
        embedded.clear_supports()


def test_a_support_segments_itself(embedded):
    job = next(j for j in read_jobs() if j.name == "epithelium")
    mask = load_mask(job.support_mask, load_picture(job.support)) == 1
    try:
        embedded.add_support(job.support, job.support_mask)
        found = embedded.predict(job.support).mask
    finally:
        embedded.clear_supports()
    assert (found & mask).sum() / (found | mask).sum() >= LOWEST_IOU["epithelium"]
