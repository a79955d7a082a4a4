"""Times the steps of a prediction."""

from __future__ import annotations

import time
from collections.abc import Callable


class LapClock:
    """Milliseconds between laps.

    Args:
        wait: called before each reading, on devices that run ahead of the program; None where none does.
    """

    def __init__(self, wait: Callable[[], None] | None = None) -> None:
        self.laps: dict[str, float] = {}
        self._wait = wait
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Record the time since the last lap under ``name``."""
        if self._wait is not None:
            self._wait()
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1000
        self._last = now
