"""The pictures that travel with the package: one support with its mask, one query with its true mask a job."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask

PICTURES = Path(__file__).parent / "pictures"
FAILURES = Path(__file__).parent / "failures"
"""Jobs that the embedded weights do badly, to show what they are bad at."""


@dataclass(frozen=True)
class Job:
    """One few-shot job on pictures that travel with the package."""

    name: str  # short, also the prefix of its files
    title: str  # one line
    source: str  # who made the pictures
    license: str  # of the pictures
    masks: str  # how the true masks were made
    folder: Path = PICTURES  # where they lie

    @property
    def support(self) -> Path:
        """The support picture."""
        return self.folder / f"{self.name}_support.jpg"

    @property
    def support_mask(self) -> Path:
        """Its mask."""
        return self.folder / f"{self.name}_support_mask.png"

    @property
    def query(self) -> Path:
        """The query picture."""
        return self.folder / f"{self.name}_query.jpg"

    def truth(self) -> NDArray[np.bool_]:
        """The query's true mask, ``(H, W)``."""
        mask = load_mask(self.folder / f"{self.name}_query_mask.png", load_picture(self.query))
        return np.asarray(mask == 1)


def read_jobs(folder: Path = PICTURES) -> tuple[Job, ...]:
    """All jobs of the demo, or of :data:`FAILURES`."""
    records = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
    return tuple(Job(**record, folder=folder) for record in records)
