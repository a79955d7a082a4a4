"""Where tiles lie, how their answers become one, and which side they should have."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from iir_sdk.pictures.tiles import InMemory, Tiles
from iir_sdk.results.blending import Blend
from iir_sdk.results.full_size import Segmented, full_map
from iir_sdk.supports.object_scale import largest_extent, tile_side

CELLS = 12


@pytest.mark.parametrize("size", [(300, 400), (100, 2000), (57, 61), (1000, 999)])
@pytest.mark.parametrize("side", [40, 150.5, 5000])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_tiles_cover_the_picture_and_stay_inside_it(size, side, overlap):
    tiles = Tiles.of(size, side, CELLS, overlap)
    seen, cells = np.zeros(size, int), np.zeros(tiles.grid, int)
    for place in tiles.places:
        rows, columns = tiles.pixels_at(place)
        assert 0 <= rows.start < rows.stop <= size[0] and 0 <= columns.start < columns.stop <= size[1]
        seen[rows, columns] += 1
        cells[tiles.cells_at(place)] += 1
        assert seen[rows, columns].shape == pytest.approx(tiles.sides, abs=1 + max(tiles.sides) / CELLS)
    assert seen.min() >= 1 and cells.min() >= 1
    assert len(set(tiles.places)) == len(tiles.places)


def test_neighbours_have_their_overlap_in_common():
    tiles = Tiles.of((1000, 1000), 200, CELLS, 0.25)
    columns = sorted({column for _, column in tiles.places})
    assert columns[0] == 0 and columns[-1] == tiles.grid[1] - CELLS
    assert max(np.diff(columns)) <= CELLS - 0.25 * CELLS


def test_a_tile_is_nearly_square_and_as_long_as_a_picture_hardly_longer():
    assert Tiles.of((100, 1000), 300, CELLS, 0).sides == (100, 200)
    assert Tiles.of((320, 6000), 300, CELLS, 0).sides == (320, 300)
    assert Tiles.of((320, 350), 300, CELLS, 0).places == [(0, 0)]


def test_a_window_is_the_pictures_pixels():
    pixels = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
    assert np.array_equal(InMemory(pixels).window(slice(3, 9), slice(5, 40)), pixels[3:9, 5:40])


def answer(leads: np.ndarray, presence: float, confidence: float) -> Segmented:
    leads = leads.astype(np.float32)[None]
    return Segmented(leads, leads[:, ::2, ::2], np.array([[presence, confidence]], np.float32))


def test_tiles_that_agree_leave_no_seam():
    tiles = Tiles.of((200, 300), 80, CELLS, 0.25)
    truth = np.add.outer(np.arange(tiles.grid[0]), np.arange(tiles.grid[1])).astype(np.float32) + 1
    blend = Blend(tiles, answer(np.full((CELLS, CELLS), -9.0), 0.2, 0.1))
    for place in tiles.places:
        blend.add(place, answer(truth[tiles.cells_at(place)], 0.5, 0.75))
    segmented = blend.segmented()
    np.testing.assert_allclose(segmented.leads[0], truth, atol=0.05)
    np.testing.assert_allclose(segmented.scores, [[0.5, 0.75]])


def test_where_no_tile_was_looked_at_the_whole_picture_answers():
    tiles = Tiles.of((200, 300), 80, CELLS, 0.25)
    whole = answer(np.random.default_rng(0).normal(size=(CELLS, CELLS)), 0.9, 0.3)
    blend = Blend(tiles, whole)
    blend.add((0, 0), answer(np.full((CELLS, CELLS), -2.0), 0.1, 0.9))
    segmented = blend.segmented()
    inside = tiles.cells_at((0, 0))
    np.testing.assert_allclose(segmented.leads[0][inside], -2, atol=0.05)
    outside = np.ones(tiles.grid, bool)
    outside[inside] = False
    np.testing.assert_allclose(segmented.leads[0][outside], full_map(whole.leads[0], tiles.grid)[outside], rtol=1e-4)
    # The tile has no mask, so that its confidence says nothing.
    np.testing.assert_allclose(segmented.scores, [[0.9, 0.3]])


@pytest.mark.parametrize("size", [(90, 70), (96, 96), (500, 300), (40, 1200)])
def test_the_largest_part_of_a_mask_is_found(size):
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=size), min(size) / 12)
    mask = noise > np.quantile(noise, 0.7)
    parts, count = ndimage.label(mask)
    largest = parts == 1 + np.argmax(ndimage.sum_labels(mask, parts, range(1, count + 1)))
    extent = max(np.ptp(np.flatnonzero(largest.any(axis))) + 1 for axis in (0, 1))
    # Seen at 96 cells: an edge may be a cell off on each side.
    assert largest_extent(mask) == pytest.approx(extent, abs=2 * max(1, max(size) / 96))


def test_a_speck_has_an_extent():
    mask = np.zeros((2000, 2000), bool)
    mask[700, 900] = True
    assert 1 <= largest_extent(mask) <= 2 * 2000 / 96


@pytest.mark.parametrize(
    ("picture", "extent", "side"),
    [
        (1000, 200, 1000),  # as the support's picture
        (400, 360, 540),  # whose object fills it: half as much again
        (400, 40, 240),  # whose object is small in it: six times the object
        (80, 60, 180),  # of few pixels: three times the object
        (80, 78, 192),  # or what the network can tell apart
    ],
)
def test_tiles_are_as_long_as_the_supports_picture_in_bounds_of_its_object(picture, extent, side):
    mask = np.zeros((picture, picture), bool)
    mask[:extent, : extent // 2] = True
    support = SimpleNamespace(mask=mask, image_size=mask.shape)
    assert tile_side([support]) == pytest.approx(side, rel=0.06)
