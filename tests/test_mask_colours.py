"""Masks as a viewer shows them: palettes, colours, transparency."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import IirWarning, MaskError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask, mask_labels
from tests.lowest_iou import LOWEST_IOU

COINS = next(job for job in read_jobs() if job.name == "coins")
MASK = np.asarray(Image.open(COINS.support_mask).convert("L")) > 0
WHITE = Image.fromarray(np.uint8(MASK) * 255)
BY_OPTIMISERS = {
    "quantize RGB": WHITE.convert("RGB").quantize(2),
    "quantize L": WHITE.quantize(2),
    "adaptive": WHITE.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=2),
    "web": WHITE.convert("RGB").convert("P"),
    "octree": WHITE.convert("RGB").quantize(2, method=Image.Quantize.FASTOCTREE),
    "one bit": WHITE.convert("1").convert("P"),
    "256 colours": WHITE.convert("RGB").quantize(256),
}


def palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def saved(image: Image.Image, folder, suffix: str = "png", **options):
    path = folder / f"mask.{suffix}"
    image.save(path, **options)
    return path


@pytest.mark.parametrize("way", BY_OPTIMISERS)
@pytest.mark.parametrize("suffix", ["png", "gif", "tif"])
def test_black_and_white_in_a_palette_is_what_it_shows(way, suffix, tmp_path):
    assert np.array_equal(mask_labels(saved(BY_OPTIMISERS[way], tmp_path, suffix)).labels, MASK)
    assert np.array_equal(mask_labels(BY_OPTIMISERS[way]).labels, MASK)


def test_a_palette_mask_gives_the_result_of_the_plain_one(embedded, tmp_path):
    segmenter = FewShotSegmenter(embedded.engine)
    segmenter.add_support(COINS.support, saved(BY_OPTIMISERS["quantize RGB"], tmp_path))
    found, truth = segmenter.predict(COINS.query).mask, COINS.truth()
    assert (found & truth).sum() / (found | truth).sum() >= LOWEST_IOU["coins"]


def test_nearly_black_and_white_counts_as_both(tmp_path):
    image = palette(~MASK, (253, 254, 252), (3, 2, 4))
    assert np.array_equal(mask_labels(saved(image, tmp_path)).labels, MASK)
    assert np.array_equal(mask_labels(np.where(MASK, 252, 3).astype(np.uint8)).labels, MASK)


def test_soft_edges_survive_a_palette(tmp_path):
    soft = Image.fromarray(np.uint8(MASK) * 255).resize((200, 220), Image.Resampling.BICUBIC)
    path = saved(soft.convert("RGB").quantize(32), tmp_path)
    shown = np.asarray(Image.open(path).convert("L"))
    assert np.array_equal(mask_labels(path).labels, shown >= 128)


def test_one_colour_on_black_is_the_object_at_any_index(tmp_path):
    for image in (palette(~MASK, (200, 30, 30), (0, 0, 0)), palette(MASK, (0, 0, 0), (128, 0, 0))):
        assert np.array_equal(mask_labels(saved(image, tmp_path)).labels, MASK)


def test_several_colours_mean_indices(tmp_path):
    indices = np.where(MASK, 2, 0)
    indices[:5] = 1
    path = saved(palette(indices, (10, 200, 10), (200, 10, 10), (10, 10, 200), (90, 10, 10)), tmp_path)
    with pytest.raises(MaskError, match=r"holds several values: 0, 1 and 2.*value=2"):
        mask_labels(path)
    assert np.array_equal(mask_labels(path, value=2).labels, indices == 2)
    # As VOC's: class 15 with its edges unknown.
    voc = np.where(MASK, 15, 0)
    voc[:3] = 255
    colours = [(i % 7 * 30, i % 5 * 40, i % 3 * 90) for i in range(256)]
    assert np.array_equal(
        mask_labels(saved(palette(voc, *colours), tmp_path)).labels,
        np.where(voc == 15, 1, np.where(voc == 255, 255, 0)),
    )


def test_two_colours_without_black_are_not_guessed(tmp_path):
    path = saved(palette(MASK, (255, 255, 255), (200, 30, 30)), tmp_path)
    with pytest.raises(MaskError, match=r"index 0 is \(255, 255, 255\) and 1 is \(200, 30, 30\).*value=1"):
        mask_labels(path)
    assert np.array_equal(mask_labels(path, value=1).labels, MASK)
    assert np.array_equal(mask_labels(path, value=0).labels, ~MASK)


def test_value_means_the_index_of_a_grey_palette(tmp_path):
    indices = np.where(MASK, 3, 0)
    indices[:5] = 1
    path = saved(palette(indices, *[(20 * i,) * 3 for i in range(4)]), tmp_path)
    with pytest.raises(MaskError, match=r"0, 1 and 3.*value=3"):
        mask_labels(path)
    assert np.array_equal(mask_labels(path, value=3).labels, indices == 3)


def test_a_transparent_index_is_background(tmp_path):
    path = saved(palette(np.where(MASK, 2, 1), (0, 0, 0), (90, 90, 90), (40, 40, 40)), tmp_path, transparency=1)
    assert np.array_equal(mask_labels(path).labels, MASK)


def test_one_colour_in_rgb_is_the_object(tmp_path):
    for colour in ((255, 0, 0), (0, 0, 1), (255, 255, 255)):
        rgb = np.where(MASK[..., None], np.uint8(colour), np.uint8(0))
        assert np.array_equal(mask_labels(saved(Image.fromarray(rgb), tmp_path)).labels, MASK)
        assert np.array_equal(mask_labels(rgb).labels, MASK)


def test_several_colours_in_rgb_name_their_cure_and_it_works():
    rgb = np.zeros((*MASK.shape, 3), np.uint8)
    rgb[MASK] = (0, 0, 250)
    rgb[:20] = (250, 0, 0)
    image = Image.fromarray(rgb)
    with pytest.raises(MaskError, match="several colours") as caught:
        mask_labels(image)
    cure = re.search(r"\(np\.array.*axis=2\)", str(caught.value)).group()
    chosen = eval(cure, {"np": np, "image": image})
    assert chosen.any()
    assert np.array_equal(mask_labels(chosen).labels, chosen)


@pytest.mark.parametrize("faint", [0, 2, 40])
def test_a_cut_out_marks_what_is_visible(faint, tmp_path):
    picture = np.asarray(Image.open(COINS.support).convert("RGB"))
    rgba = np.dstack([picture, np.where(MASK, 255, faint).astype(np.uint8)])
    rgba[: len(rgba) // 2, :, 3][~MASK[: len(rgba) // 2]] = 0
    assert np.array_equal(mask_labels(saved(Image.fromarray(rgba), tmp_path)).labels, MASK)
    assert np.array_equal(mask_labels(rgba).labels, MASK)


def test_value_does_not_choose_from_a_jpeg(tmp_path):
    with pytest.raises(MaskError, match="value=255: mask comes from a lossy file"):
        mask_labels(saved(WHITE, tmp_path, "jpg"), value=255)


def test_an_object_over_all_of_the_border_may_be_inverted():
    mask = np.ones((60, 60), bool)
    mask[20:30, 20:30] = False
    picture = load_picture(np.zeros((60, 60, 3), np.uint8))
    with pytest.warns(IirWarning, match="inverted"):
        load_mask(mask, picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_mask(~mask, picture)
        for job in read_jobs():
            load_mask(job.support_mask, load_picture(job.support))
            job.truth()
