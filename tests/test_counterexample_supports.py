"""Counterexamples that users add: kept, saved, removed and joined with a label's supports, in every engine."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import LabelError, MaskError, NoSupportError, SupportError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.supports.cache import as_task
from tests.conftest import draw_scene

pytestmark = pytest.mark.filterwarnings("ignore:the support's object")

JOBS = {job.name: job for job in read_jobs()}


def other(seed: int) -> np.ndarray:
    return draw_scene(np.random.default_rng(seed), (60, 80))[0]


def test_a_counterexample_changes_masks_and_its_removal_changes_them_back(small_segmenter, scene):
    small_segmenter.add_support(*scene)
    before = small_segmenter.predict(scene[0]).probability
    counterexample = small_segmenter.add_counterexample(other(1))
    assert (counterexample.label, counterexample.image_size) == ("object", (60, 80))
    assert small_segmenter.supports.counterexamples == (counterexample,)
    assert len(small_segmenter.supports) == 1
    assert "counterexamples={'object': 1}" in repr(small_segmenter)
    assert not np.array_equal(small_segmenter.predict(scene[0]).probability, before)
    small_segmenter.remove_support(counterexample)
    np.testing.assert_array_equal(small_segmenter.predict(scene[0]).probability, before)
    assert "counterexamples" not in repr(small_segmenter)
    with pytest.raises(LabelError, match=r"counterexample .* is not in this bank"):
        small_segmenter.remove_support(counterexample)


def test_it_may_come_before_the_supports_and_of_other_labels_it_changes_nothing(small_segmenter, scene):
    small_segmenter.add_support(*scene, label="a")
    alone = small_segmenter.predict(scene[0]).probability
    small_segmenter.add_counterexample(other(1), label="b")
    np.testing.assert_array_equal(small_segmenter.predict(scene[0], labels=["a"]).probability, alone)
    small_segmenter.add_support(*scene, label="b")
    late = small_segmenter.predict(scene[0])
    np.testing.assert_allclose(late["a"].probability, alone, atol=1e-4)
    assert np.abs(late["b"].probability - alone).max() > 1e-4


def test_a_label_with_counterexamples_alone_names_both_cures(small_segmenter, scene):
    small_segmenter.add_counterexample(other(1), label="b")
    for labels in (None, ["b"]):
        with pytest.raises(NoSupportError, match=r"add_support\(image, mask, label='b'\).*remove_support\('b'\)"):
            small_segmenter.predict(scene[0], labels=labels)
    small_segmenter.add_support(*scene, label="a")
    with pytest.raises(NoSupportError, match="'b' has counterexamples"):
        small_segmenter.predict(scene[0])
    small_segmenter.add_support(*scene, label="b")
    assert small_segmenter.predict(scene[0]).labels == ("a", "b")
    small_segmenter.remove_support("b")
    assert small_segmenter.supports.counterexamples == ()
    assert small_segmenter.predict(scene[0]).labels == ("a",)
    small_segmenter.add_counterexample(other(1), label="c")
    small_segmenter.clear_supports()
    assert small_segmenter.supports.counterexamples == ()


def test_files_copies_and_pickles_keep_it(small_segmenter, small_checkpoint, scene):
    buffer = io.BytesIO()
    counterexample = small_segmenter.add_counterexample(other(1))
    small_segmenter.save_supports(io.BytesIO())
    small_segmenter.add_support(*scene)
    small_segmenter.save_supports(buffer)
    expected = small_segmenter.predict(scene[0]).probability
    loaded = FewShotSegmenter(small_checkpoint, device="cpu")
    for _ in range(2):
        assert [s.id for s in loaded.load_supports(buffer.getvalue())] == [small_segmenter.supports[0].id]
        assert [c.id for c in loaded.supports.counterexamples] == [counterexample.id]
    for twin in (loaded, copy.deepcopy(small_segmenter), pickle.loads(pickle.dumps(small_segmenter))):
        np.testing.assert_array_equal(twin.predict(scene[0]).probability, expected)
    assert counterexample.tokens.mid.dtype == np.float16
    assert counterexample.nbytes < small_segmenter.supports[0].nbytes


def test_a_file_with_another_networks_tokens_is_refused(small_segmenter, embedded, scene):
    small_segmenter.add_counterexample(other(1))
    buffer = io.BytesIO()
    identity = embedded.engine.identity
    small_segmenter.supports.save(buffer, checkpoint=identity.name, sha256=identity.sha256)
    with pytest.raises(SupportError, match=r"counterexample \w+: tokens_\w+ is"):
        embedded.load_supports(buffer.getvalue())
    assert embedded.supports.counterexamples == ()


def test_a_region_is_cut_out_as_an_object_is_and_may_be_all_of_the_picture(small_segmenter):
    picture, disc = draw_scene(np.random.default_rng(1), (60, 80))
    whole = small_segmenter.add_counterexample(picture)
    marked = small_segmenter.add_counterexample(picture, np.ones((60, 80), np.uint8))
    part = small_segmenter.add_counterexample(Image.fromarray(picture), np.where(disc, 3, 0).astype(np.uint8), value=3)
    np.testing.assert_array_equal(whole.tokens.keys, marked.tokens.keys)
    assert 0 < part.tokens.mass.sum() < 0.7 * whole.tokens.mass.sum()
    assert not part.tokens.side.any()


@pytest.mark.parametrize(
    ("region", "says"),
    [
        (np.zeros((60, 80), np.uint8), "region is empty"),
        (np.ones((60, 81), np.uint8), "region is 60 x 81 but its image is 60 x 80"),
        ("no.png", "region: no file"),
        (np.full((60, 80), -1), "region"),
    ],
)
def test_regions_that_cannot_be_used(small_segmenter, region, says):
    with pytest.raises((MaskError, FileNotFoundError), match=says):
        small_segmenter.add_counterexample(other(1), region)
    with pytest.raises(LabelError, match="non-empty"):
        small_segmenter.add_counterexample(other(1), label="")
    assert small_segmenter.supports.counterexamples == ()


def test_however_many_they_are_they_count_as_one_picture_and_within_the_budget(embedded):
    support = load_picture(JOBS["coins"].support)
    mask = load_mask(JOBS["coins"].support_mask, support) == 1
    engine = embedded.engine
    state = engine.encode(support.pixels, mask)
    tokens = [
        engine.encode_counterexample(picture.pixels, np.ones(picture.size, bool))
        for picture in (load_picture(JOBS[name].query) for name in ("face", "grass", "eye"))
    ]
    two = as_task([state, state], 10_000)
    for several in (tokens[:1], tokens, tokens * 4):
        task = as_task([state, state], 10_000, several)
        added = task.tokens.mass.astype(float).sum(2) - two.tokens.mass.astype(float).sum(2)
        np.testing.assert_allclose(added, tokens[0].mass.astype(float).sum(), rtol=0.01)
        within = as_task([state, state], 100, several)
        assert within.tokens.count <= max(100, state.tokens.count)
        np.testing.assert_allclose(
            within.tokens.mass.astype(float).sum(), task.tokens.mass.astype(float).sum(), rtol=0.02
        )
        assert set(np.unique(within.tokens.side)) <= {0, 1}


def test_what_a_counterexample_shows_is_found_less(embedded):
    # Other coins beside each other are hardest to tell from themselves: the direction, not how far.
    picture = load_picture(JOBS["coins"].query).pixels
    try:
        embedded.add_support(JOBS["coins"].support, JOBS["coins"].support_mask)
        before = embedded.predict(picture)
        embedded.add_counterexample(picture)
        after = embedded.predict(picture)
    finally:
        embedded.clear_supports()
    assert after.probability.mean() < 0.9 * before.probability.mean()
