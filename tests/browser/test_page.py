"""The page in a real browser: paint, see, correct, decide, take back, export; all of it kept."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from scipy import ndimage

from iir_sdk.engines.base import Engine
from tests.browser.hands import (
    asked,
    counts,
    drag,
    mask_of,
    on_screen,
    open_tile,
    paint,
    record_of,
    shown_id,
    strokes_of,
    until,
)
from tests.browser.photos import write_photos
from tests.browser.serving import served

SHAPE = (270, 360)
STROKE = [(0.42, 0.5), (0.5, 0.52), (0.58, 0.5)]


def first_stroke(page: Page) -> str:
    """Open the first picture, paint the coin in it; its id."""
    open_tile(page, "coins_001.jpg")
    paint(page, STROKE, SHAPE)
    return shown_id(page)


def test_one_stroke_masks_every_picture_and_a_second_one_corrects(address, open_page):
    page = open_page(address)
    expect(page.locator("#hint-line")).to_have_text("Open a picture and paint the thing.")
    picture = first_stroke(page)
    first = mask_of(page, picture)
    assert first is not None and first.any()
    expect(page.locator("#strip .thumb-mask:not([hidden])")).to_have_count(8)

    paint(page, [(0.05, 0.05), (0.3, 0.05)], SHAPE, button="right")
    kinds = [stroke["kind"] for stroke in strokes_of(page, picture)]
    assert kinds == ["object", "background"]
    until(page, lambda: not np.array_equal(mask_of(page, picture), first))
    assert {label["name"] for label in asked(page, "project")["labels"]} == {"thing"}


def test_the_mask_on_the_canvas_is_the_servers(address, open_page):
    page = open_page(address)
    picture = first_stroke(page)
    page.wait_for_timeout(300)
    page.mouse.move(5, 5)
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.keyboard.press("m")
    page.wait_for_timeout(200)
    bare = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    tinted = np.abs(np.asarray(shown, int) - np.asarray(bare, int)).sum(2) > 24
    x0, y0 = map(round, on_screen(page, 0, 0, SHAPE))
    x1, y1 = map(round, on_screen(page, 1, 1, SHAPE))
    mask = np.asarray(Image.fromarray(mask_of(page, picture) > 0).resize((x1 - x0, y1 - y0)))
    mask, tinted = mask[: len(mask) * 3 // 4], tinted[y0:y1, x0:x1][: len(mask) * 3 // 4]  # a hint lies below
    edge = np.ones((9, 9), bool)  # wide enough for the outline
    assert tinted[ndimage.binary_erosion(mask, edge)].mean() > 0.98
    assert tinted[~ndimage.binary_dilation(mask, edge)].mean() < 0.02


def test_deciding_leads_on_and_everything_is_there_again_after_a_reload_and_a_restart(engine, folder, open_page):
    with served(engine, folder) as address:
        page = open_page(address)
        page.locator("#labels input").fill("coin")
        page.locator("#labels input").press("Enter")
        first = first_stroke(page)
        expect(page.locator("#strip .thumb-mask:not([hidden])")).to_have_count(8)
        page.click("#accept")
        second = shown_id(page)
        assert second != first
        page.click("#reject")
        until(page, lambda: counts(page)["rejected"] == 1)
        before = {name: record_of(page, name)["status"] for name in (first, second)}
        assert before == {first: "accepted", second: "rejected"}
        mask = mask_of(page, first)
        page.reload()
        expect(page.locator(".tile[data-status=accepted]")).to_have_count(1)
        expect(page.locator(".chip[aria-pressed=true]")).to_contain_text("coin")
    with served(engine, folder) as address:
        again = open_page(address)
        expect(again.locator(".tile[data-status=accepted]")).to_have_count(1)
        expect(again.locator(".tile[data-status=rejected]")).to_have_count(1)
        assert np.array_equal(mask_of(again, first), mask)
        assert [stroke["kind"] for stroke in strokes_of(again, first)] == ["object"]


def test_undo_and_redo_take_strokes_and_decisions_back(address, open_page):
    page = open_page(address)
    picture = first_stroke(page)
    page.keyboard.press("a")
    until(page, lambda: counts(page)["accepted"] == 1)
    page.keyboard.press("Control+z")
    until(page, lambda: shown_id(page) == picture)
    page.keyboard.press("Control+z")
    until(page, lambda: not strokes_of(page, picture))
    page.keyboard.press("Control+Shift+z")
    until(page, lambda: len(strokes_of(page, picture)) == 1)


def test_a_box_two_labels_and_not_in_this_picture(address, open_page):
    page = open_page(address)
    first = first_stroke(page)
    page.click(".chip.plus")
    page.locator("#labels input").fill("big <b>coin</b>")
    page.locator("#labels input").press("Enter")
    expect(page.locator(".chip[aria-pressed=true]")).to_have_text("big <b>coin</b>")
    page.keyboard.press("r")
    paint(page, [(0.3, 0.3), (0.7, 0.75)], SHAPE)
    strokes = strokes_of(page, first)
    assert [(s["label"], s["kind"]) for s in strokes] == [("thing", "object"), ("big <b>coin</b>", "box")]
    page.keyboard.press("1")
    expect(page.locator(".chip[aria-pressed=true]")).to_have_text("thing")
    page.keyboard.press("n")
    second = shown_id(page)
    page.click("#not-here")
    expect(page.locator("#toasts")).to_contain_text("no thing in this picture")
    assert [s["kind"] for s in strokes_of(page, second)] == ["not_here"]
    page.locator(".chip", has_text="thing").click()
    page.fill("#label-name", "coin")
    page.keyboard.press("Enter")
    expect(page.locator(".chip").first).to_have_text("coin")
    expect(page.locator("#toasts .bad")).to_have_count(0)


def test_the_threshold_changes_masks_at_once(address, open_page):
    page = open_page(address)
    picture = first_stroke(page)
    area = (mask_of(page, picture) > 0).sum()
    page.click("#adjust-open")
    page.locator("#threshold").fill("0.2")
    until(page, lambda: (mask_of(page, picture) > 0).sum() > area)
    page.locator("#threshold").fill("0.9")
    until(page, lambda: (mask_of(page, picture) > 0).sum() < area)
    assert asked(page, "project")["settings"]["threshold"] == 0.9


def test_what_is_accepted_is_exported(address, open_page, tmp_path: Path):
    page = open_page(address)
    if not asked(page, "project").get("formats"):
        pytest.skip("this server exports nothing yet")
    picture = first_stroke(page)
    page.keyboard.press("a")
    until(page, lambda: counts(page)["accepted"] == 1)
    page.click("#export-open")
    with page.expect_download() as download:
        page.click("[data-format=masks]")
    download.value.save_as(tmp_path / "masks.zip")
    with zipfile.ZipFile(tmp_path / "masks.zip") as exported:
        (name,) = [name for name in exported.namelist() if name.endswith(".png")]
        assert Path(name).stem.startswith("coins_001")
        mask = np.asarray(Image.open(io.BytesIO(exported.read(name)))) > 0
    assert np.array_equal(mask, mask_of(page, picture) > 0)


def test_pictures_dropped_in_are_added_and_a_broken_one_says_so(engine: Engine, folder: Path, open_page, tmp_path):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    write_photos(tmp_path / "more", "face", 2)
    (tmp_path / "more" / "no_picture.png").write_bytes(b"words")
    with served(engine, folder) as address:
        page = open_page(address)
        first_stroke(page)
        page.keyboard.press("Escape")
        page.set_input_files("#files", sorted(map(str, (tmp_path / "more").iterdir())))
        expect(page.locator("#toasts .bad")).to_contain_text("no_picture.png")
        expect(page.locator(".tile[title^='face_00']")).to_have_count(2)
        page.locator("[data-filter=broken]").click()
        broken = page.locator(".tile[data-status=broken]")
        expect(broken).to_have_count(1)
        expect(broken.locator(".broken")).to_be_visible()
        broken.click()
        expect(page.locator("#stage-error")).to_contain_text("cannot be read")
        assert page.locator("#accept").is_disabled()


def test_dragging_the_picture_and_the_wheel_paint_nothing(address, open_page):
    page = open_page(address)
    open_tile(page, "coins_001.jpg")
    at = on_screen(page, 0.5, 0.5, SHAPE)
    page.mouse.move(*at)
    page.mouse.wheel(0, -600)
    page.keyboard.down(" ")
    drag(page, [at, (at[0] + 80, at[1] + 30)])
    page.keyboard.up(" ")
    drag(page, [at, (at[0] + 80, at[1] + 30)], button="middle")
    page.click("[data-tool=box]")
    page.keyboard.press("Space")  # of the picture, not of the button clicked last
    assert page.evaluate("() => document.activeElement.id") == "top"
    page.keyboard.press("b")
    assert strokes_of(page, shown_id(page)) == []
    page.keyboard.press("0")
    paint(page, STROKE, SHAPE)
    (stroke,) = strokes_of(page, shown_id(page))
    assert np.abs(np.array(stroke["points"][0]) - STROKE[0]).max() < 0.01
