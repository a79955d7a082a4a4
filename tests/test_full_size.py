"""From the network's grid to the picture's own size, the same for every backend."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from iir_sdk.demo.job import read_jobs
from iir_sdk.results.full_size import full_map, mask_map, probability_map


@settings(max_examples=150, deadline=None)
@given(cells=st.tuples(*[st.integers(2, 40)] * 2), size=st.tuples(*[st.integers(2, 90)] * 2))
def test_it_is_torchs_bilinear_antialiased_where_it_shrinks(cells, size):
    # Of maps one cell wide, torch 2.13 gives every row the first one's value where it antialiases.
    grid = np.random.default_rng(0).normal(size=cells).astype(np.float32)
    shrinks = size[0] < cells[0] or size[1] < cells[1]
    expected = F.interpolate(torch.from_numpy(grid)[None, None], size, mode="bilinear", antialias=shrinks)[0, 0]
    np.testing.assert_allclose(full_map(grid, size), expected, atol=2e-5)
    np.testing.assert_allclose(probability_map(grid, size), expected.sigmoid(), atol=2e-5)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 999), threshold=st.floats(0, 1), size=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_a_mask_is_where_the_probability_exceeds_the_threshold(seed, threshold, size):
    lead = 4 * np.random.default_rng(seed).normal(size=(12, 12)).astype(np.float32)
    probability = probability_map(lead, size)
    for cut in (threshold, 0.5, float(probability[0, 0]), float(probability[-1, -1])):
        assert np.array_equal(mask_map(lead, size, cut), probability > cut)


def test_a_result_holds_the_grid_and_shares_its_masks_with_its_views(embedded):
    first, second = read_jobs()[:2]
    for job in (first, second):
        embedded.add_support(job.support, job.support_mask, label=job.name)
    result = embedded.predict(first.query)
    embedded.clear_supports()
    height, width = result.image.shape[:2]
    for label, mask in zip(result, result.masks, strict=True):
        assert np.shares_memory(result[label].mask, mask)
        assert np.array_equal(mask, result[label].probability > 0.5)
    assert result[second.name][second.name].mask.shape == (height, width)
    grids = result.leads.nbytes + result.grid_priors.nbytes
    assert grids < height * width
    # Nothing of the picture's size but the picture and the masks is kept, nor sent.
    assert sum(v.nbytes for v in vars(result).values() if isinstance(v, np.ndarray)) < result.image.nbytes + 2 * grids
    assert len(pickle.dumps(result)) < result.image.nbytes + 2 * grids
    for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result[first.name]))):
        assert np.array_equal(other[first.name].mask, result[first.name].mask)
        assert not np.shares_memory(other.masks, result.masks)


def test_views_of_views_read_their_own_masks(embedded):
    jobs = read_jobs()[:3]
    for job in jobs:
        embedded.add_support(job.support, job.support_mask, label=job.name)
    result, again = (embedded.predict(jobs[1].query) for _ in range(2))
    embedded.clear_supports()
    # In another order than the labels', and before the masks of all are asked for.
    for job in reversed(jobs):
        view = result[job.name][job.name]
        assert np.array_equal(view.mask, again.masks[again.labels.index(job.name)])
    assert np.array_equal(result.masks, again.masks)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_a_result_prints_its_share_without_making_masks(embedded, threshold):
    job = read_jobs()[0]
    embedded.add_support(job.support, job.support_mask, label="it")
    result = embedded.predict(job.query, threshold=threshold)
    embedded.clear_supports()
    printed = float(repr(result).split("'it': ")[1].split("%")[0])
    assert "_masks" not in vars(result)
    assert printed == pytest.approx(100 * result.mask.mean(), abs=0.15)
