"""To the network's size and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.errors import ConfigError
from iir_sdk.preprocessing import Preprocessing, restore


@settings(max_examples=40, deadline=None)
@given(height=st.integers(8, 300), width=st.integers(8, 300))
def test_sizes_and_ranges(height, width):
    preprocessing = Preprocessing(size=64)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    image = preprocessing.image(pixels)
    assert image.shape == (3, 64, 64)
    assert 0 <= image.min() <= image.max() <= 1
    probability = restore(torch.randn(2, 2, 8, 8), (height, width))
    assert probability.shape == (2, height, width)


def test_a_small_object_survives_shrinking():
    mask = np.zeros((1000, 1500), bool)
    mask[400:402, 700:702] = True
    share = Preprocessing().mask(mask)
    assert share.max() > 0
    assert float(share.mean()) == pytest.approx(mask.mean(), rel=0.3)


def test_normalise_is_the_formula():
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    image = torch.rand(2, 3, 4, 4)
    found = preprocessing.normalise(image)
    for c in range(3):
        expected = (image[:, c] - preprocessing.mean[c]) / preprocessing.std[c]
        torch.testing.assert_close(found[:, c], expected)


def test_restore_is_the_softmax_of_resized_logits():
    logits = torch.randn(1, 2, 6, 5)
    full = torch.nn.functional.interpolate(logits, (30, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(restore(logits, (30, 20)), full.softmax(1)[:, 1], atol=1e-5, rtol=1e-5)


def test_an_upright_picture_stays_in_its_place():
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:40, :60, 0] = 255
    image = Preprocessing(size=64).image(pixels)
    assert image[0, :30, :30].min() > 0.99
    assert image[0, 34:, 34:].max() < 0.01
    assert image[1:].max() == 0


@pytest.mark.parametrize("bad", [{"size": 100}, {"size": 0}, {"std": (0.0, 1, 1)}, {"interpolation": "nearest"}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Preprocessing.from_dict(bad)
    with pytest.raises(ConfigError, match="crop"):
        Preprocessing.from_dict({"crop": 1})
