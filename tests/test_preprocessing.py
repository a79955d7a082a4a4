"""To the network's size and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iir_sdk.errors import ConfigError
from iir_sdk.pictures.preprocess import Preprocessing, resized_map, resized_picture


@settings(max_examples=40, deadline=None)
@given(height=st.integers(8, 300), width=st.integers(8, 300))
def test_sizes_and_ranges(height, width):
    preprocessing = Preprocessing(size=64)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    image = preprocessing.image(pixels)
    assert image.shape == (3, 64, 64)
    assert -1 <= image.min() <= image.max() <= 1


def test_a_small_object_survives_shrinking():
    mask = np.zeros((1000, 1500), bool)
    mask[400:402, 700:702] = True
    _, share, _ = Preprocessing(support_context=0).support(np.zeros((1000, 1500, 3), np.uint8), mask)
    assert share.max() > 0
    assert float(share.mean()) == pytest.approx(mask.mean(), rel=0.3)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), context=st.sampled_from([0, 1, 1.5, 2, 4, 100]))
def test_a_support_keeps_all_of_its_object_and_some_background(data, context):
    height, width = data.draw(st.integers(8, 300)), data.draw(st.integers(8, 300))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = np.zeros((height, width), bool)
    mask[top : data.draw(st.integers(top + 1, height)), left : data.draw(st.integers(left + 1, width))] = True
    if mask.all():
        mask[0, 0] = False
    rows, columns = Preprocessing(support_context=context).support_cut(mask, np.ones_like(mask))
    assert mask[rows, columns].sum() == mask.sum()
    assert not mask[rows, columns].all()
    picture = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    image, share, known = Preprocessing(support_size=64, support_context=context).support(picture, mask)
    assert image.shape == (3, 64, 64)
    assert share.shape == (64, 64)
    assert share.max() > 0
    assert (known == 1).all()
    # Cut alike: the picture is its own mask; a tall one has its rows averaged first, two by two here.
    assert np.allclose(image[0] / 2 + 0.5, share, atol=0.1)


def test_a_small_object_fills_its_support():
    mask = np.zeros((400, 600), bool)
    mask[100:180, 200:300] = True
    _, share, _ = Preprocessing().support(np.zeros((400, 600, 3), np.uint8), mask)
    assert 0.2 < float(share.mean()) < 0.3


def test_normalise_is_the_formula(rng):
    preprocessing = Preprocessing(size=64, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    found = preprocessing.image(pixels)
    for c in range(3):
        expected = (pixels[..., c] / 255 - preprocessing.mean[c]) / preprocessing.std[c]
        np.testing.assert_allclose(found[c], expected, atol=1e-5)


def test_resizing_a_map_is_torchs_bilinear(rng):
    small = rng.normal(size=(9, 7)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.tensor(small)[None, None], (40, 61), mode="bilinear")
    np.testing.assert_allclose(resized_map(small, (40, 61)), expected[0, 0], atol=1e-5)


def test_an_upright_picture_stays_in_its_place():
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:40, :60, 0] = 255
    image = Preprocessing(size=64).image(pixels) / 2 + 0.5
    assert image[0, :30, :30].min() > 0.99
    assert image[0, 34:, 34:].max() < 0.01
    assert image[1:].max() == 0


@pytest.mark.parametrize(
    "bad", [{"size": 32}, {"size": 0}, {"support_context": -1}, {"std": (0.0, 1, 1)}, {"interpolation": "nearest"}]
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Preprocessing.from_dict(bad)
    with pytest.raises(ConfigError, match="crop"):
        Preprocessing.from_dict({"crop": 1})


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 70), (96, 96), (333, 517), (384, 200), (1201, 900), (9000, 70), (70, 900)])
def test_pictures_are_resized_as_pil_does(rng, size, interpolation):
    smooth = Image.fromarray(rng.integers(0, 256, (9, 11, 3)).astype(np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    pixels = np.asarray(smooth)
    for part in (pixels, pixels[3:-5, 2:]):
        expected = Image.fromarray(part).resize((96, 96), Image.Resampling[interpolation.upper()])
        difference = np.abs(resized_picture(part, 96, interpolation).astype(int) - np.asarray(expected))
        assert difference.max() <= 2
        assert difference.mean() < 0.3
        assert len(part) >= 4 * 96 or not difference.any()


def test_rows_that_are_left_over_move_nothing(rng):
    """A ramp from top to bottom, of heights that whole groups of rows do not fill."""
    for height in (384, 575, 577, 961, 1000):
        ramp = np.linspace(0, 255, height)[:, None, None].repeat(100, 1).repeat(3, 2).round().astype(np.uint8)
        found = resized_picture(ramp, 96, "bilinear")[1:-1, 0, 0]
        centres = (np.arange(96) + 0.5)[1:-1] * height / 96 - 0.5
        np.testing.assert_allclose(found, centres * 255 / (height - 1), atol=1)
