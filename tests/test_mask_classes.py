"""Masks of several objects are never taken for soft edges or cut-outs; shades of one colour are never classes."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image, ImageFilter

from iir_sdk.errors import IirWarning, MaskError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask, mask_labels

ROWS, COLUMNS = np.mgrid[:240, :320]
DISC = (ROWS - 120) ** 2 + (COLUMNS - 160) ** 2 < 70**2
OTHER = (ROWS - 30) ** 2 + (COLUMNS - 30) ** 2 < 9**2


def tiles(count: int) -> np.ndarray:
    """Objects numbered row by row, from 0."""
    side = int(count**0.5)
    return (ROWS * side // 240) * side + COLUMNS * side // 320


def seeds(count: int) -> np.ndarray:
    """Touching objects of any shape, numbered from the top, from 1."""
    places = np.random.default_rng(1).random((count, 2)) * (240, 320)
    places = places[np.argsort(places[:, 0])]
    nearest = np.full(ROWS.shape, np.inf)
    numbers = np.zeros(ROWS.shape, int)
    for i, (row, column) in enumerate(places):
        distance = (ROWS - row) ** 2 + (COLUMNS - column) ** 2
        numbers[distance < nearest] = i + 1
        np.minimum(nearest, distance, out=nearest)
    return numbers


def blurred(radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(np.uint8(DISC) * 255).filter(ImageFilter.GaussianBlur(radius)))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("numbered", [tiles, seeds])
@pytest.mark.parametrize("count", [144, 225, 400, 900])
def test_many_numbered_objects_are_classes(numbered, count):
    with pytest.raises(MaskError, match="several values"):
        mask_labels(numbered(count).astype(np.uint16))


@pytest.mark.parametrize("count", [9, 81, 400])
def test_many_colours_are_classes(count):
    colours = np.random.default_rng(0).integers(0, 256, (count, 3)).astype(np.uint8)
    mask = colours[tiles(count)]
    mask[::16] = 0
    with pytest.raises(MaskError, match="several colours"):
        mask_labels(mask)


def test_a_small_or_dark_second_colour_is_a_class():
    for second in ((0, 255, 0), (0, 0, 60)):
        mask = np.where(DISC[..., None], np.uint8([255, 0, 0]), np.uint8(0))
        mask[OTHER] = second
        with pytest.raises(MaskError, match="several colours"):
            mask_labels(mask)


def test_a_heat_map_in_colours_is_no_mask():
    share = blurred(20) / 255
    heat = np.stack([np.clip(1.5 - abs(4 * share - k), 0, 1) for k in (3, 2, 1)], 2)
    with pytest.raises(MaskError, match="several colours"):
        mask_labels((heat * 255).astype(np.uint8))


@pytest.mark.parametrize("colour", [(128, 0, 0), (255, 200, 0), (60, 0, 90)])
@pytest.mark.parametrize("radius", [0.7, 3])
def test_shades_of_one_colour_are_soft_edges(colour, radius):
    soft = np.round(blurred(radius)[..., None] / 255 * colour).astype(np.uint8)
    assert (mask_labels(soft).labels == DISC).mean() > 0.995


@pytest.mark.parametrize("colour", [(128, 0, 0), (128, 128, 128), (200, 0, 200)])
def test_a_jpeg_is_cut_at_half_of_its_brightest(colour):
    image = Image.fromarray(np.where(DISC[..., None], np.uint8(colour), np.uint8(0)))
    jpeg = encoded(image, "JPEG", quality=75)
    assert (mask_labels(jpeg).labels == DISC).mean() > 0.995


def test_a_jpeg_saved_as_png_has_one_colour_still():
    image = Image.fromarray(np.where(DISC[..., None], np.uint8([128, 0, 0]), np.uint8(0)))
    again = Image.open(io.BytesIO(encoded(image, "JPEG", quality=75)))
    assert (mask_labels(encoded(again, "PNG")).labels == DISC).mean() > 0.995


def indexed(classes: np.ndarray) -> Image.Image:
    image = Image.fromarray(classes.astype(np.uint8)).convert("P")
    image.putpalette([v for i in range(256) for v in (i * 37 % 256, i * 91 % 256, i * 53 % 256)])
    return image


def test_classes_on_a_transparent_background_are_classes():
    classes = np.where(OTHER, 2, DISC)
    classes[230:] = 255
    file = encoded(indexed(classes), "PNG", transparency=0)
    with pytest.raises(MaskError, match=r"several values: 0, 1, 2 and 255"):
        mask_labels(file)
    assert np.array_equal(mask_labels(file, value=1).labels, np.where(classes > 2, 255, classes == 1))
    single = encoded(indexed(np.where(OTHER, 0, classes)), "PNG", transparency=0)
    assert set(np.unique(mask_labels(single).labels)) == {0, 1, 255}


def test_colours_on_a_transparent_background_name_cures_that_work():
    rgba = np.zeros((240, 320, 4), np.uint8)
    rgba[DISC], rgba[OTHER] = (250, 0, 0, 255), (0, 0, 250, 255)
    image = Image.fromarray(rgba)
    with pytest.raises(MaskError, match="several colours") as caught:
        mask_labels(image)
    one = re.search(r"\(np\.array.*axis=2\)", str(caught.value)).group()
    whole = re.search(r"is the object: (.*)\.$", str(caught.value)).group(1)
    assert np.array_equal(mask_labels(eval(one, {"np": np, "image": image})).labels, OTHER)
    assert np.array_equal(mask_labels(eval(whole, {"np": np, "image": image})).labels, DISC | OTHER)


def test_arithmetic_just_beyond_0_and_1_changes_nothing():
    share = blurred(3).astype(np.float32) / 255
    for beyond in (share * np.float32(1.000001), share - np.float32(1e-7), share * 1.0002 - 1e-4):
        assert (mask_labels(beyond).labels == (share > 0.5)).mean() > 0.999


def test_a_resized_map_below_0_names_its_cure():
    with pytest.raises(MaskError, match=r"of a resized map of probabilities mask > 0\.5"):
        mask_labels(blurred(3) / 255 * 1.4 - 0.2)


@pytest.mark.parametrize("top", [1, 7, 255])
def test_the_printed_cure_of_an_inverted_mask_works(top):
    mask = np.uint8(~DISC) * np.uint8(top)
    picture = load_picture(np.zeros((240, 320, 3), np.uint8))
    with pytest.warns(IirWarning, match="inverted") as caught:
        load_mask(mask, picture)
    cure = re.search(r"Then pass (.*?);", str(caught[0].message)).group(1)
    assert np.array_equal(load_mask(eval(cure, {"np": np, "mask": mask}), picture), DISC)
