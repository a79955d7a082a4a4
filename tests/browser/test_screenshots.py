"""The pictures of the page in the docs, made when asked: ``IIR_SCREENSHOTS=docs/images pytest`` this file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from iir_sdk import FewShotSegmenter
from tests.browser.hands import across, counts, iou, mask_of, open_tile, paint, shown_id, until
from tests.browser.photos import write_photos
from tests.browser.serving import served

FOLDER = os.environ.get("IIR_SCREENSHOTS", "")
LARGEST = 150_000
"""Bytes of one picture."""


def shoot(page: Page, name: str) -> None:
    """Write what the page shows, as a small JPEG."""
    expect(page.locator(".tile .thumb img:not(.thumb-mask):not(.loaded):visible")).to_have_count(0)
    page.wait_for_timeout(500)
    whole = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for quality in range(88, 60, -4):
        content = io.BytesIO()
        whole.save(content, "JPEG", quality=quality, subsampling=0, optimize=True)
        if content.tell() < LARGEST:
            break
    Path(FOLDER).mkdir(parents=True, exist_ok=True)
    (Path(FOLDER) / f"web_{name}.jpg").write_bytes(content.getvalue())


@pytest.mark.skipif(not FOLDER, reason="IIR_SCREENSHOTS names no folder for the docs' pictures")
def test_screenshots(embedded: FewShotSegmenter, tmp_path: Path, open_page):
    folder = tmp_path / "portraits"
    wanted = write_photos(folder, "face", 24, side=640, least=0.03, span=(0.6, 0.95))
    with served(embedded.engine, folder) as address:
        page = open_page(address, viewport={"width": 1120, "height": 700})
        page.locator("#labels input").fill("face")
        page.locator("#labels input").press("Enter")
        name = "face_001.jpg"
        open_tile(page, name)
        picture = shown_id(page)
        for _ in range(4):
            expect(page.locator("#busy")).to_be_hidden()
            mask = mask_of(page, picture)
            shown = wanted[name] & False if mask is None else mask > 0
            if iou(shown, wanted[name]) > 0.85:
                break
            missing, surplus = wanted[name] & ~shown, shown & ~wanted[name]
            area = missing if missing.sum() > surplus.sum() else surplus
            paint(page, across(area)[0], area.shape, button="left" if area is missing else "right")
        page.mouse.move(600, 60)
        expect(page.locator("#strip .thumb-mask:not([hidden])")).to_have_count(24, timeout=120_000)
        until(page, lambda: "of 24 accepted" in page.inner_text("#progress-text"), 120)
        shoot(page, "editor")
        for _ in range(5):
            page.keyboard.press("a")
        until(page, lambda: counts(page)["accepted"] == 5)
        dark = open_page(address, viewport={"width": 1120, "height": 700}, color_scheme="dark")
        shoot(dark, "overview_dark")
        narrow = open_page(address, viewport={"width": 390, "height": 750}, has_touch=True, is_mobile=True)
        narrow.locator(".tile").first.tap()
        shoot(narrow, "narrow")
