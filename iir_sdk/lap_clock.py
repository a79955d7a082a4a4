"""Times the steps of a prediction."""

from __future__ import annotations

import time

import torch


class LapClock:
    """Milliseconds between laps; waits for the device first.

    Args:
        device: whose work is timed.
    """

    def __init__(self, device: torch.device) -> None:
        self.laps: dict[str, float] = {}
        self._device = device
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Record the time since the last lap under ``name``."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1000
        self._last = now
