"""Verifies a copy of a benchmark: its counts against the published ones, and a sheet of pictures with their masks."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from iir_sdk.data.dataset import IGNORE, FewShotDataset, Selection
from iir_sdk.data.mask_tile import RED, YELLOW, mask_tile
from iir_sdk.data.registry import benchmark

TILE = 200
COLUMNS = 4


@dataclass(frozen=True)
class Count:
    """One number of a copy.

    Attributes:
        what: is counted.
        found: in this copy.
        published: or None where nothing was.
    """

    what: str
    found: int
    published: int | None

    @property
    def differs(self) -> bool:
        """Whether the copy is not the published one."""
        return self.published is not None and self.found != self.published


def check_counts(name: str, root: Path) -> list[Count]:
    """Every count of a copy beside the published one; raises as the benchmark's reader does."""
    known = benchmark(name)
    return [Count(what, found, known.published.get(what)) for what, found in known.census(root).items()]


def missing_files(name: str, root: Path) -> list[Path]:
    """Files that a copy's lists and annotations name and that are not there."""
    return [file for file in benchmark(name).files(root) if not file.is_file()]


def contact_sheet(dataset: FewShotDataset, *, pictures: int) -> Image.Image:
    """Random pictures, classes in turn, the class in red, ignored pixels in yellow."""
    rng = random.Random(0)
    names = rng.sample(sorted(dataset.classes), len(dataset.classes))
    rows = -(-pictures // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * TILE), "white")
    for i in range(pictures):
        name = names[i % len(names)]
        tile = _tile(dataset, name, rng.choice(dataset.classes[name]))
        sheet.paste(tile, (i % COLUMNS * TILE, i // COLUMNS * TILE))
    return sheet


def sheet_of_every_part(name: str, root: Path) -> Image.Image:
    """The test pictures of each fold, one below the other."""
    known = benchmark(name)
    sheets = [
        contact_sheet(known.read(root, Selection(fold=fold)), pictures=COLUMNS * 2) for fold in range(known.folds)
    ]
    whole = Image.new("RGB", (COLUMNS * TILE, sum(s.height for s in sheets)))
    for i, sheet in enumerate(sheets):
        whole.paste(sheet, (0, sum(s.height for s in sheets[:i])))
    return whole


def _tile(dataset: FewShotDataset, name: str, key: str) -> Image.Image:
    mask = dataset.mask(name, key)
    layers = [(mask == 1, RED, 0.5), (mask == IGNORE, YELLOW, 1.0)]
    return mask_tile(dataset.picture(key), layers, f"{name} {key}"[:32], TILE)
