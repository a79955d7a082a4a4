"""What a user does on the page: with the mouse, and as they see it."""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect
from scipy import ndimage


def asked(page: Page, path: str) -> Any:
    """JSON that the page's server answers, by a request of its own."""
    with urllib.request.urlopen(urljoin(page.url, f"api/{path}")) as answer:
        return json.load(answer)


def until(page: Page, holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        page.wait_for_timeout(40)


def counts(page: Page) -> dict[str, int]:
    """How many pictures are in which state."""
    by_status: dict[str, int] = asked(page, "project")["counts"]
    return by_status


def strokes_of(page: Page, picture: str) -> list[dict[str, Any]]:
    """What was painted on a picture."""
    strokes: list[dict[str, Any]] = asked(page, f"pictures/{picture}")["strokes"]
    return strokes


def mask_of(page: Page, picture: str) -> np.ndarray | None:
    """The labels of a picture's mask as the server has it, uint8 (H, W); None while it has none."""
    try:
        with urllib.request.urlopen(urljoin(page.url, f"api/pictures/{picture}/mask?size=full")) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())))
    except urllib.error.HTTPError:
        return None


def shown_id(page: Page) -> str:
    """The picture that is large on the page."""
    return str(page.get_attribute("#strip", "data-current"))


def record_of(page: Page, picture: str) -> dict[str, Any]:
    """What the server knows of a picture."""
    record: dict[str, Any] = next(r for r in asked(page, "pictures?limit=10000")["pictures"] if r["id"] == picture)
    return record


def open_tile(page: Page, name: str) -> None:
    """Click a thumbnail, and wait until it is large."""
    page.locator(f".tile[title^='{name}']").click()
    expect(page.locator("#picture-name")).to_have_text(name)


def on_screen(page: Page, x: float, y: float, shape: tuple[int, int]) -> tuple[float, float]:
    """Where a point of the picture (in shares) lies in the window, while all of it is shown."""
    box = page.locator("#top").bounding_box()
    assert box is not None
    scale = min((box["width"] - 40) / shape[1], (box["height"] - 40) / shape[0], 8)
    left = box["x"] + (box["width"] - shape[1] * scale) / 2
    top = box["y"] + (box["height"] - shape[0] * scale) / 2
    return left + x * shape[1] * scale, top + y * shape[0] * scale


def drag(page: Page, points: list[tuple[float, float]], button: Any = "left") -> None:
    """Press at the first point of the window, go through the others, let go."""
    page.mouse.move(*points[0])
    page.mouse.down(button=button)
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up(button=button)


def paint(
    page: Page, points: list[tuple[float, float]], shape: tuple[int, int], button: Any = "left"
) -> dict[str, Any]:
    """Paint through points of the picture (in shares); what the server answers, once the mask is shown."""
    with page.expect_response(
        lambda answer: answer.url.endswith("/strokes") and answer.request.method == "POST"
    ) as sent:
        drag(page, [on_screen(page, x, y, shape) for x, y in points], button)
    answer: dict[str, Any] = sent.value.json()
    assert sent.value.ok, answer
    return answer


def across(area: np.ndarray) -> tuple[list[tuple[float, float]], float]:
    """A stroke along the widest row of an area's largest part, in shares, and how far it is from the edge in pixels."""
    parts, count = ndimage.label(area)
    part = parts == 1 + int(np.argmax(ndimage.sum_labels(area, parts, range(1, count + 1))))
    depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    room = float(depth[row, column])
    height, width = area.shape
    reach = max(1.0, room * 0.45)
    ends = ((column - reach, row), (column + reach, row))
    return [((x + 0.5) / width, (y + 0.5) / height) for x, y in ends], room


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two masks, bool (H, W)."""
    return float((a & b).sum() / max(1, (a | b).sum()))
