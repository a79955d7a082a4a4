"""The point of it: one kind of thing cut out of a hundred photos, by who looks, paints, and presses keys."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from tests.browser.hands import across, asked, counts, iou, mask_of, paint, shown_id, until
from tests.browser.photos import write_photos

PHOTOS = 100
GOOD_ENOUGH = 0.8
"""IoU from which the scripted user sees nothing to correct."""
MOST_STROKES = 4
"""On one picture; then it is accepted as it is."""

# Times of the keystroke-level model (Card, Moran and Newell 1980): a key, pointing, a decision.
KEY, POINT, THINK = 0.28, 1.1, 1.35
STROKE = THINK + 2 * POINT
"""To see what is wrong, move there, and draw."""


@dataclass
class User:
    """Compares what they see with what they want, as people do; knows nothing of the program."""

    page: Page
    wanted: dict[str, np.ndarray]
    looks: int = 0
    strokes: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    touched: set[str] = field(default_factory=set)

    def look(self, name: str, picture: str) -> np.ndarray:
        mask = mask_of(self.page, picture)
        return np.zeros_like(self.wanted[name]) if mask is None else mask > 0

    def correct(self, name: str, shown: np.ndarray) -> None:
        """One stroke: where most of it is missing, or most of it is too much."""
        missing, surplus = self.wanted[name] & ~shown, shown & ~self.wanted[name]
        points, is_missing = max(
            (((*across(area), area is missing)) for area in (missing, surplus) if area.any()), key=lambda made: made[1]
        )[::2]
        began = time.monotonic()
        paint(self.page, points, shown.shape, button="left" if is_missing else "right")
        self.waited += time.monotonic() - began
        self.strokes += 1
        self.seconds += STROKE
        self.touched.add(name)

    def finish_picture(self) -> None:
        """Correct the picture that is shown until it is good enough, and accept it."""
        name, picture = self.page.inner_text("#picture-name"), shown_id(self.page)
        for _ in range(MOST_STROKES):
            expect(self.page.locator("#busy")).to_be_hidden()  # who sees that a mask is being made waits for it
            shown = self.look(name, picture)
            if iou(shown, self.wanted[name]) >= GOOD_ENOUGH:
                break
            self.correct(name, shown)
        expect(self.page.locator("#accept")).to_be_enabled()
        self.page.keyboard.press("a")
        self.looks += 1
        self.seconds += THINK + KEY


@contextmanager
def command(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``iir-sdk web`` as users start it; its address, and its process."""
    words = [sys.executable, "-m", "iir_sdk", "web", str(folder), "--port", "0", "--no-open"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), line
            yield line.split()[0], process
        finally:
            process.kill()


def test_a_hundred_photos_in_under_five_minutes(tmp_path: Path, open_page, record_property):
    wanted = write_photos(tmp_path / "photos", "coins", PHOTOS)
    with command(tmp_path / "photos") as (address, _):
        page = open_page(address)
        began = time.monotonic()
        user = User(page, wanted)
        page.locator(".tile").first.click()
        user.seconds += THINK + POINT
        expect(page.locator("#stage-hint")).to_have_text("Paint over the thing. A rough stroke is enough.")
        # A mask that changes while it is accepted is shown again: there may be more looks than photos.
        while user.looks < 2 * PHOTOS and page.locator("#editor").is_visible():
            user.finish_picture()
        expect(page.locator("#overview")).to_be_visible()
        until(page, lambda: counts(page)["accepted"] == PHOTOS)
        ids = {record["name"]: record["id"] for record in asked(page, "pictures?limit=1000")["pictures"]}
        scores = [iou(user.look(name, ids[name]), mask) for name, mask in wanted.items()]
        machine = time.monotonic() - began
    with command(tmp_path / "photos") as (address, _):  # killed, not closed: nothing is lost
        assert counts(open_page(address))["accepted"] == PHOTOS
    said = {
        "iou": round(float(np.mean(scores)), 3),
        "lowest": round(min(scores), 3),
        "looks": user.looks,
        "strokes": user.strokes,
        "touched": len(user.touched),
        "user_seconds": round(user.seconds),
        "waited_seconds": round(user.waited),
        "machine_seconds": round(machine),
    }
    print(said)
    for name, value in said.items():
        record_property(name, value)
    assert np.mean(scores) > 0.85, said
    assert user.seconds < 300, said
