"""The page in several tabs, by keyboard alone, by touch, narrow, dark, and with many pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from iir_sdk.engines.base import Engine
from tests.browser.hands import asked, counts, mask_of, open_tile, paint, shown_id, strokes_of, until
from tests.browser.photos import write_photos
from tests.browser.serving import served

SHAPE = (270, 360)
STROKE = [(0.42, 0.5), (0.5, 0.52), (0.58, 0.5)]


def test_what_happens_in_one_tab_is_seen_in_eight(address, open_page):
    """More tabs than a browser opens connections: they share one for events."""
    page = open_page(address)
    others = [page.context.new_page() for _ in range(7)]
    for other in others:
        other.goto(address)
        other.wait_for_selector(".tile")
    page.bring_to_front()
    open_tile(page, "coins_001.jpg")
    paint(page, STROKE, SHAPE)
    picture = shown_id(page)
    page.keyboard.press("a")
    for other in (others[0], others[-1]):
        expect(other.locator(f".tile[data-id='{picture}'][data-status=accepted]")).to_have_count(1)
        expect(other.locator(".chip")).to_have_count(2)  # the label, and a plus
    page.close()  # another tab takes the connection over
    open_tile(others[3], "coins_002.jpg")
    others[3].keyboard.press("x")
    expect(others[6].locator(".tile[data-status=rejected]")).to_have_count(1)


def test_everything_works_by_keyboard_alone(address, open_page):
    page = open_page(address)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("() => document.activeElement.dataset.id")
    page.keyboard.press("Enter")
    expect(page.locator("#editor")).to_be_visible()
    assert shown_id(page) == second
    page.keyboard.press("c")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    until(page, lambda: len(strokes_of(page, second)) == 1)
    (stroke,) = strokes_of(page, second)
    assert stroke["kind"] == "object" and stroke["points"][-1] > stroke["points"][0]
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    expect(page.locator("[data-tool=background]")).to_have_attribute("aria-pressed", "true")
    size = page.locator("#brush").input_value()
    page.keyboard.press("]")
    assert float(page.locator("#brush").input_value()) > float(size)
    expect(page.locator("#accept")).to_be_enabled()
    page.keyboard.press("Enter")
    until(page, lambda: counts(page)["accepted"] == 1)
    assert shown_id(page) != second
    page.keyboard.press("ArrowLeft")
    assert shown_id(page) == second
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#overview")).to_be_visible()
    assert page.evaluate("() => document.activeElement.dataset.id") == second


def test_nothing_is_without_a_name_for_who_does_not_see_it(address, open_page):
    page = open_page(address)
    open_tile(page, "coins_001.jpg")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [role=application]')]
            .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.hidden))
            .map(e => e.outerHTML)"""
    )
    assert nameless == []


def seen_whole(page: Page, *parts: str) -> None:
    """Parts lie within the window, and the page does not scroll sideways."""
    size = page.viewport_size
    assert size is not None
    for part in parts:
        box = page.locator(part).bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= size["width"] + 0.5, part
        assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"] + 0.5, part
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_narrow_window_shows_all_that_is_needed_and_a_finger_paints(address, open_page):
    page = open_page(address, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    seen_whole(page, "#filters", "#check", "#export-open")
    page.locator(".tile").first.tap()
    seen_whole(page, "#accept", "#reject", "#not-here", "#next", "#previous", "[data-tool=object]", "[data-tool=erase]")
    box = page.locator("#top").bounding_box()
    assert box and box["height"] > 200
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(page, lambda: len(strokes_of(page, shown_id(page))) == 1)


def test_at_every_width_all_that_stands_above_the_pictures_is_seen(engine: Engine, folder: Path, open_page):
    """Between 760 and 1080 pixels the button that leads on was cut off."""
    (folder / "broken.jpg").write_bytes(b"no picture")
    with served(engine, folder) as address:
        page = open_page(address)
        expect(page.locator(".tile[data-status=broken] .broken")).to_have_text("Cannot be read")
        page.evaluate("() => { document.querySelector('#again').hidden = false; }")
        for width in (1440, 1250, 1200, 1081, 1080, 1000, 800, 761, 760, 360):
            page.set_viewport_size({"width": width, "height": 800})
            page.evaluate("() => new Promise(requestAnimationFrame)")
            seen_whole(page, "#filters", "#again", "#add", "#check", "#export-open")
    expect(page.locator("#lost")).to_be_visible()


def brightness(page: Page, part: str) -> float:
    colour = page.evaluate("part => getComputedStyle(document.querySelector(part)).backgroundColor", part)
    return float(np.mean([float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]))


def test_dark_where_the_system_is(address, open_page):
    assert brightness(open_page(address), "body") > 200
    dark = open_page(address, color_scheme="dark")
    assert brightness(dark, "body") < 60
    text = dark.evaluate("() => getComputedStyle(document.querySelector('#project-name')).color")
    assert text == "rgb(237, 237, 240)"


def test_five_hundred_pictures_exist_only_in_sight_and_are_masked_there_first(
    engine: Engine, tmp_path: Path, open_page
):
    write_photos(tmp_path / "photos", "coins", 500, side=160)
    with served(engine, tmp_path / "photos") as address:
        page = open_page(address)
        expect(page.locator("[data-filter=all] .count")).to_have_text("500")
        assert page.locator(".tile").count() < 60
        open_tile(page, "coins_001.jpg")
        paint(page, STROKE, (120, 160))
        page.keyboard.press("Escape")
        page.locator("#order").select_option("name")
        page.locator(".tile").first.focus()
        page.keyboard.press("End")
        last = page.locator(".tile[title^='coins_500.jpg']")
        expect(last).to_be_focused()
        assert page.locator(".tile").count() < 60
        expect(last.locator(".thumb-mask:not([hidden])")).to_have_count(1)
        assert counts(page)["waiting"] > 100, "what is in sight came first"
        assert mask_of(page, str(last.get_attribute("data-id"))) is not None
        assert asked(page, "pictures?limit=0")["total"] == 500
