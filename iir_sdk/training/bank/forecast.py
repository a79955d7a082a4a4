"""What filling a bank will take, said before it is spent."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from iir_sdk.errors import OutputError
from iir_sdk.training.bank.stream import ViewBatch

_TIMED = 3


class Forecast(NamedTuple):
    """Views still to be made, what their features take on disk or in memory, and how long making them takes."""

    views: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        minutes = round(self.seconds / 60)
        span = f"about {minutes} min" if minutes else "less than a minute"
        return f"{self.views:,} views: {self.bytes / 1e9:.1f} GB, {span}"


def forecast(make: Callable[[range], ViewBatch], views: int, processes: int) -> Forecast:
    """What so many views take that so many processes make, from a few that are made here."""
    # The global generator is the run's: what is drawn here must not change its course.
    with torch.random.fork_rng(devices=[]):
        make(range(1))
        begun = time.perf_counter()
        batch = make(range(_TIMED))
        seconds = (time.perf_counter() - begun) / _TIMED
    assert batch.taps is not None
    of_taps = sum(2 * tap[0].numel() for tap in batch.taps)
    of_masks = sum(view.masks.nbytes for view in batch.views) / _TIMED
    return Forecast(views, round(views * (of_taps + of_masks)), views * seconds / processes)


def check_room(needed: Forecast, folder: Path | None) -> None:
    """Refuse, by an OutputError, a bank that fits neither the disk of its folder nor, without one, the memory."""
    if folder is not None:
        free: float = shutil.disk_usage(folder).free
        cure, where = (
            "free some, name another folder, or make fewer: --set bank.views=N",
            f"the disk of {folder} has room for",
        )
    else:
        free = _memory()
        cure = "keep it on disk with iir-sdk bank and pass it with --bank, or --set bank.views=N"
        where = "the memory is"
    if needed.bytes > free:
        raise OutputError(f"{needed}; but {where} {free / 1e9:.1f} GB: {cure}.")


def _memory() -> float:
    """Bytes of the whole memory; without bound where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
