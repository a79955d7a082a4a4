"""Masks that say something of a part of a picture: clicks, strokes, `known=`."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
from PIL import Image

from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import IirWarning, MaskError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.training.run.hand_drawn import clicks, strokes

JOBS = {job.name: job for job in read_jobs()}


@pytest.fixture
def segmenter(embedded):
    yield embedded
    embedded.clear_supports()


def shot(name: str) -> tuple[np.ndarray, np.ndarray]:
    picture = load_picture(JOBS[name].support)
    return picture.pixels, load_mask(JOBS[name].support_mask, picture)


def iou(segmenter, name: str) -> float:
    mask, truth = segmenter.predict(JOBS[name].query).mask, JOBS[name].truth()
    return float((mask & truth).sum() / (mask | truth).sum())


def discs(shape: tuple[int, int], *points: tuple[int, int], radius: int = 8) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.any([(y - row) ** 2 + (x - column) ** 2 <= radius**2 for row, column in points], 0)


def test_both_kinds_of_partial_mask_are_one(segmenter):
    pixels, labels = shot("grass")
    drawn = strokes(labels, random.Random(3))
    as_255 = segmenter.add_support(pixels, drawn)
    with_known = segmenter.add_support(pixels, drawn == 1, known=drawn != 255)
    coloured = segmenter.add_support(pixels, np.where(drawn == 1, 7, 0), known=Image.fromarray(drawn != 255))
    for one in (with_known, coloured):
        for name, array in as_255.state.arrays().items():
            np.testing.assert_array_equal(one.state.arrays()[name], array)
        np.testing.assert_array_equal(one.mask, drawn == 1)
        np.testing.assert_array_equal(one.packed.known, drawn != 255)


def test_known_throughout_is_the_mask_alone(segmenter):
    pixels, labels = shot("coins")
    one, other = (segmenter.add_support(pixels, labels, **k) for k in ({}, {"known": np.ones(labels.shape, bool)}))
    np.testing.assert_array_equal(one.state.tokens.keys, other.state.tokens.keys)


@pytest.mark.parametrize(("way", "least"), [(strokes, 0.6), (clicks, 0.5)])
def test_a_few_marks_find_the_grass(segmenter, way, least):
    # By weights that were not trained with marks: they find it, if not as well as by a whole mask.
    pixels, labels = shot("grass")
    found = []
    for seed in range(4):
        segmenter.clear_supports()
        drawn = way(labels, random.Random(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IirWarning)
            segmenter.add_support(pixels, drawn == 1, known=drawn != 255)
        found.append(iou(segmenter, "grass"))
    assert np.median(found) > least


def test_marks_are_not_complained_of_as_a_small_object_and_a_small_object_is(segmenter):
    pixels, labels = shot("face")
    row, column = (int(v) for v in np.argwhere(labels == 1).mean(0))
    click, beside = discs(labels.shape, (row, column)), discs(labels.shape, (20, 20), (20, 440))
    assert click.sum() < 400
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.add_support(pixels, click, known=click | beside)
        # All the background is painted, and of the object a click alone.
        segmenter.add_support(pixels, click, known=click | (labels == 0))
    with pytest.warns(IirWarning, match=r"the support's object has \d+ pixels") as told:
        segmenter.add_support(pixels, click, known=np.ones(labels.shape, bool))
    assert told[0].filename == __file__


def test_without_any_background_it_is_told_and_a_counterexample_cures_it(segmenter):
    pixels, labels = shot("coins")
    with pytest.warns(IirWarning, match=r"no background is known.*add_counterexample\(image, label='coin'\)") as told:
        segmenter.add_support(pixels, labels == 1, "coin", known=labels == 1)
    assert told[0].filename == __file__
    segmenter.predict(JOBS["coins"].query)
    segmenter.clear_supports()
    segmenter.add_counterexample(JOBS["face"].query, label="coin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.add_support(pixels, labels == 1, "coin", known=labels == 1)


def test_what_is_wrong_with_known_names_a_cure_that_works(segmenter):
    pixels, labels = shot("coins")
    mask, known = labels == 1, labels == 0
    with pytest.raises(MaskError, match=r"known leaves out \d+ of the object's \d+ pixels.*known \| \(mask > 0\)"):
        segmenter.add_support(pixels, mask, known=known)
    segmenter.add_support(pixels, mask, known=known | (mask > 0))
    with pytest.raises(MaskError, match=r"known is 10 x 10 but its image is 83 x 78"):
        segmenter.add_support(pixels, mask, known=np.ones((10, 10), bool))
    with pytest.raises(MaskError, match="known is empty"):
        segmenter.add_support(pixels, mask, known=np.zeros_like(mask))
    marks = np.where(mask, 1, 255).astype(np.uint8)
    with pytest.raises(MaskError, match=r"known=np\.array\(mask\) != 255"):
        segmenter.add_support(pixels, marks)
    with pytest.warns(IirWarning, match="no background"):
        segmenter.add_support(pixels, marks, known=np.array(marks) != 255)


def test_marks_are_cut_by_all_that_is_known_and_an_outlined_object_by_itself():
    sides = Preprocessing(support_context=2.0)
    mask = discs((400, 600), (200, 200), radius=40)
    everything = np.ones_like(mask)
    by_object = sides.support_cut(mask, everything)
    ring = everything & (mask | ~discs((400, 600), (200, 200), radius=48))
    assert sides.support_cut(mask, ring) == by_object
    assert not sides.marks_only(mask, ring)
    beside = discs((400, 600), (100, 300), (350, 120), radius=5)
    marks = mask & discs((400, 600), (200, 200), radius=6)
    assert sides.marks_only(marks, marks | beside)
    rows, columns = sides.support_cut(marks, marks | beside)
    assert (marks | beside)[rows, columns].sum() == (marks | beside).sum()
    assert rows.stop - rows.start > by_object[0].stop - by_object[0].start
