"""Where a closer look goes, with an engine that sees bright things as the network sees objects: worse if small."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from iir_sdk.engines.tiled import Scale, _Look
from iir_sdk.pictures.preprocess import resized_map
from iir_sdk.pictures.tiles import InMemory
from iir_sdk.results.full_size import Segmented, mask_map

CELLS = 30


class Bright:
    """Counts what it is shown; ``calibrated`` gives scores."""

    def __init__(self, calibrated: bool = True) -> None:
        self.shown, self.calibrated = 0, calibrated

    def segment(self, pictures, tasks):
        self.shown += len(pictures)
        return [self._seen(picture) for picture in pictures], {}

    def _seen(self, picture):
        share = resized_map(picture[..., 0].astype(np.float32) / 255, (CELLS, CELLS))[None]
        scores = np.full((1, 2), share.max(), np.float32) if self.calibrated else None
        return Segmented(12 * share - 6, share, scores)


def dark(side: int = 2400, *things: tuple[int, int]) -> np.ndarray:
    """With bright squares of 40 pixels."""
    pixels = np.zeros((side, side, 3), np.uint8)
    for row, column in things:
        pixels[row : row + 40, column : column + 40] = 255
    return pixels


def looked(pixels: np.ndarray, engine: Bright, side: float = 300, most: int | None = None):
    """The whole's answer, and that of a closer look of ``auto``."""
    ((whole,), _), engine.shown = engine.segment([pixels], []), 0
    look = _Look(engine, InMemory(pixels), overlap=0.25, everywhere=False, most=most)
    return whole, look.segmented(whole, [Scale(side, (0,), [SimpleNamespace()])])


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_small_thing_is_found_by_looking_where_its_trace_is(calibrated):
    pixels, engine = dark(2400, (1520, 720)), Bright(calibrated)
    whole, closer = looked(pixels, engine)
    truth = pixels[..., 0] > 0
    assert not mask_map(whole.leads[0], truth.shape, 0.5).any()
    mask = mask_map(closer.leads[0], truth.shape, 0.5)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.7
    # A hundred tiles and more lie in the picture.
    assert engine.shown <= 20


def test_an_empty_picture_is_not_looked_at_again():
    engine = Bright()
    whole, closer = looked(dark(), engine)
    assert closer is whole and engine.shown == 0


def test_what_the_whole_is_sure_of_is_not_looked_at_again():
    pixels = dark()
    pixels[500:1500, 600:1700] = 255
    engine = Bright()
    whole, closer = looked(pixels, engine)
    assert closer is whole and engine.shown == 0


def test_a_budget_bounds_the_tiles():
    things = [(row, column) for row in range(100, 2300, 200) for column in range(100, 2300, 200)]
    engine = Bright()
    looked(dark(2400, *things), engine, side=700, most=9)
    # Four decide, then nine.
    assert engine.shown <= 13


def test_far_pictures_are_looked_at_in_wide_tiles_first():
    engine = Bright()
    whole, closer = looked(dark(6000, (4321, 1234)), engine, side=300)
    assert whole.leads.max() < -5
    mask = mask_map(closer.leads[0], (6000, 6000), 0.5)
    rows, columns = np.nonzero(mask)
    assert abs(rows.mean() - 4341) < 10 and abs(columns.mean() - 1254) < 10
    # All wide ones, and a few close ones of some 700.
    assert engine.shown < 120


class Otherwise(Bright):
    """Sees in tiles the right half of what it sees in the whole, and is surer of that."""

    def __init__(self, sureness: float) -> None:
        super().__init__()
        self.sureness = sureness

    def _seen(self, picture):
        seen, whole = super()._seen(picture), len(picture) == 2400
        if not whole:
            seen.leads[...] = np.where(resized_map(picture[..., 1].astype(np.float32), (CELLS, CELLS)) > 127, 6, -6)
        return replace(seen, scores=np.array([[1, self.sureness if whole else 0.95]], np.float32))


@pytest.mark.parametrize(("sureness", "side", "keeps"), [(0.3, 900, False), (0.75, 900, True), (0.75, 300, False)])
def test_tiles_do_not_turn_over_what_the_whole_was_rather_sure_of_unless_they_are_far_closer(sureness, side, keeps):
    pixels = dark()
    pixels[700:1700, 500:1700, 0] = 255
    pixels[700:1700, 1300:1700, 1] = 255
    whole, closer = looked(pixels, Otherwise(sureness), side=side)
    assert (closer is whole) == keeps
    if not keeps:
        assert abs((closer.leads > 0).mean() - 400 / 2400 * 1000 / 2400) < 0.01
