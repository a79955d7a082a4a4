"""Sheets of pictures with masks laid over them, to be looked at."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from iir_sdk.data.dataset import IGNORE, FewShotDataset, Selection
from iir_sdk.data.registry import benchmark

Layer = tuple[NDArray[np.bool_], tuple[int, int, int], float]
"""Where, in which colour, how opaque (1 hides the picture)."""

RED, GREEN, YELLOW = (255, 0, 0), (0, 200, 0), (255, 230, 0)
TILE = 200
COLUMNS = 4


def mask_tile(pixels: NDArray[np.uint8], layers: Sequence[Layer], title: str, side: int) -> Image.Image:
    """A square tile: ``(H, W, 3)`` uint8 RGB with layers laid over it in turn, and a title at the top."""
    shown = pixels.astype(np.float32)
    for mask, colour, opacity in layers:
        shown[mask] = (1 - opacity) * shown[mask] + opacity * np.array(colour, np.float32)
    tile = Image.fromarray(shown.astype(np.uint8)).resize((side, side))
    ImageDraw.Draw(tile).text((4, 4), title, fill="white", stroke_width=2, stroke_fill="black")
    return tile


def contact_sheet(dataset: FewShotDataset, *, pictures: int) -> Image.Image:
    """Random pictures, classes in turn, the class in red, ignored pixels in yellow."""
    rng = random.Random(0)
    names = rng.sample(sorted(dataset.classes), len(dataset.classes))
    sheet = Image.new("RGB", (COLUMNS * TILE, -(-pictures // COLUMNS) * TILE), "white")
    for i in range(pictures):
        name = names[i % len(names)]
        key = rng.choice(dataset.classes[name])
        mask = dataset.mask(name, key)
        layers = [(mask == 1, RED, 0.5), (mask == IGNORE, YELLOW, 1.0)]
        tile = mask_tile(dataset.picture(key), layers, f"{name} {key}"[:32], TILE)
        sheet.paste(tile, (i % COLUMNS * TILE, i // COLUMNS * TILE))
    return sheet


def sheet_of_every_part(name: str, root: Path) -> Image.Image:
    """The test pictures of each fold of a benchmark, one below the other."""
    reader = benchmark(name).reader
    parts = (reader.read(root, Selection(fold=fold)) for fold in range(reader.FOLDS))
    sheets = [contact_sheet(part, pictures=COLUMNS * 2) for part in parts]
    whole = Image.new("RGB", (COLUMNS * TILE, sum(s.height for s in sheets)))
    for i, sheet in enumerate(sheets):
        whole.paste(sheet, (0, sum(s.height for s in sheets[:i])))
    return whole
