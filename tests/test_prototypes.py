"""Masked average pooling and dual prototypes against loops."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.model.prototypes import dual_prototypes, masked_average, resize_mask


def loop_average(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    channels, height, width = features.shape
    total, weight = np.zeros(channels), 0.0
    for y in range(height):
        for x in range(width):
            total += features[:, y, x] * weights[y, x]
            weight += weights[y, x]
    return total / weight


def test_masked_average_equals_loops(rng):
    features, weights = rng.normal(size=(2, 5, 4, 3)), rng.uniform(size=(2, 1, 4, 3))
    found = masked_average(torch.tensor(features), torch.tensor(weights))
    for i in range(2):
        np.testing.assert_allclose(found[i], loop_average(features[i], weights[i, 0]), rtol=1e-5)


def test_dual_prototypes_equal_loops(rng):
    features = rng.normal(size=(1, 4, 5, 6))
    mask = (rng.uniform(size=(5, 6)) > 0.4).astype(float)
    active = (rng.uniform(size=(5, 6)) > 0.5).astype(float)
    found = dual_prototypes(torch.tensor(features), torch.tensor(mask)[None, None], torch.tensor(active)[None, None])
    for name, weights in (("core", mask * active), ("local", mask * (1 - active)), ("whole", mask)):
        np.testing.assert_allclose(getattr(found, name)[0], loop_average(features[0], weights), rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(active=st.sampled_from(["none", "all", "outside"]), seed=st.integers(0, 10_000))
def test_empty_region_takes_the_whole_prototype(active, seed):
    rng = np.random.default_rng(seed)
    features = torch.tensor(rng.normal(size=(1, 3, 4, 4)), dtype=torch.float32)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = torch.tensor(rng.uniform(0.01, 1, (2, 2)))
    activated = {"none": torch.zeros_like(mask), "all": torch.ones_like(mask), "outside": (mask == 0).float()}[active]
    found = dual_prototypes(features, mask, activated)
    empty = found.local if active == "all" else found.core
    assert torch.equal(empty, found.whole)
    assert all(torch.isfinite(p).all() and p.abs().sum() > 0 for p in (found.core, found.local, found.whole))


def test_one_pixel_survives_resizing():
    mask = torch.zeros(1, 1, 384, 384)
    mask[..., 100, 200] = 1
    small = resize_mask(mask, (12, 12))
    assert small.sum() > 0
    assert torch.isclose(small.mean(), mask.mean())
