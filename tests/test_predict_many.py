"""Many pictures, some of which cannot be used: no good one is lost."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from iir_sdk.demo.job import PICTURES
from iir_sdk.errors import ConfigError, ImageError, PictureNotFoundError, PrecisionError


@pytest.fixture
def segmenter(small_segmenter, scene):
    small_segmenter.add_support(*scene)
    return small_segmenter


@pytest.fixture
def queries(scene) -> list[object]:
    return [scene[0]] * 4 + ["gone.jpg"] + [scene[0]] * 5


def test_an_error_comes_after_the_good_ones_before_it_and_ends_nothing(segmenter, queries):
    results = segmenter.predict_many(queries)
    for _ in range(4):
        next(results)
    with pytest.raises(PictureNotFoundError, match=r"query 4.*gone\.jpg"):
        next(results)
    assert len(list(results)) == 5
    assert results.skipped == []


def test_what_is_skipped_is_listed(segmenter, queries):
    results = segmenter.predict_many(iter([*queries, np.zeros((3, 3))]), on_error="skip", batch_size=3)
    assert len(list(results)) == 9
    assert [(s.position, s.source) for s in results.skipped[:1]] == [(4, "gone.jpg")]
    assert [(s.position, type(s.error)) for s in results.skipped] == [(4, PictureNotFoundError), (10, ImageError)]
    everything_broken = segmenter.predict_many(["gone.jpg"] * 5, on_error="skip", batch_size=2)
    assert list(everything_broken) == []
    assert len(everything_broken.skipped) == 5


def test_a_source_that_breaks_down_loses_nothing(segmenter, scene):
    def camera():
        yield from [scene[0]] * 3
        raise RuntimeError("camera gone")

    for on_error in ("raise", "skip"):
        results = segmenter.predict_many(camera(), on_error=on_error)
        for _ in range(3):
            next(results)
        with pytest.raises(RuntimeError, match="camera gone"):
            next(results)


def test_one_overflow_costs_only_its_own_picture(segmenter, queries, monkeypatch):
    engine, original = segmenter.engine, segmenter.engine.segment

    def overflowing(pictures, tasks):
        segmented, timings = original(pictures, tasks)
        for array in vars(segmented[1]).values():
            if array is not None:
                array[...] = np.nan
        return segmented, timings

    monkeypatch.setattr(engine, "segment", overflowing)
    good = [q for q in queries if not isinstance(q, str)]
    results = segmenter.predict_many(good[:4], on_error="skip")
    assert len(list(results)) == 3
    assert [(s.position, type(s.error)) for s in results.skipped] == [(1, PrecisionError)]
    results = segmenter.predict_many(good[:4])
    next(results)
    with pytest.raises(PrecisionError, match="query 1"):
        next(results)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, int])
def test_any_integer_is_a_batch_size(segmenter, scene, kind):
    assert len(list(segmenter.predict_many([scene[0]] * 3, batch_size=kind(2)))) == 3


@pytest.mark.parametrize(("setting", "value"), [("batch_size", True), ("batch_size", 2.0), ("on_error", "ignore")])
def test_settings_out_of_range_are_told_at_once(segmenter, scene, setting, value):
    with pytest.raises(ConfigError, match=setting):
        segmenter.predict_many([scene[0]], **{setting: value})


def test_one_picture_is_not_taken_for_its_rows(segmenter, scene):
    pixels = scene[0]
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    for one in (pixels, pixels[..., 0], tensor, content.getvalue(), content, PICTURES / "coins_query.jpg"):
        with pytest.raises(ImageError, match=r"for one picture call predict"):
            segmenter.predict_many(one)
    assert len(list(segmenter.predict_many([pixels, tensor, PICTURES / "coins_query.jpg"]))) == 3
    # Arrays of pictures, and of paths, are collections.
    assert len(list(segmenter.predict_many(np.stack([pixels, pixels])))) == 2
    assert len(list(segmenter.predict_many(np.array([str(PICTURES / "coins_query.jpg")])))) == 1


def test_scores_that_do_not_exist_are_told_before_any_work(segmenter, scene, monkeypatch):
    assert not segmenter.engine.identity.calibrated
    monkeypatch.setattr(segmenter.engine, "segment", None)
    with pytest.raises(ConfigError, match="iir-sdk calibrate"):
        segmenter.predict("gone.jpg", absent_below=0.5)
    with pytest.raises(ConfigError, match="iir-sdk calibrate"):
        segmenter.predict_many([], absent_below=0.5)
