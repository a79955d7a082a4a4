"""The thread that works on a project: in which order, within which memory, and what it makes of trouble."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import IirError, MaskError, PictureNotFoundError, ProjectError
from iir_sdk.web.project import actions
from iir_sdk.web.project.desk import Desk
from iir_sdk.web.project.opening import opened_desk
from iir_sdk.web.project.worker import Worker
from tests.conftest import draw_scene
from tests.waiting import until

COUNT = 12
LINE = [(0.4, 0.5), (0.6, 0.5)]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> FewShotSegmenter:
    """Quick, and wrong: for all but the masks themselves."""
    return FewShotSegmenter(tiny_checkpoint, device="cpu", threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for i in range(COUNT):
        Image.fromarray(draw_scene(rng)[0]).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def desk(photos: Path, tiny: FewShotSegmenter) -> Iterator[Desk]:
    desk = opened_desk(tiny.engine, photos)
    desk.change(lambda held: actions.new_label(held, "disc", None)).result()
    yield desk
    desk.close()


def all_done(desk: Desk) -> bool:
    progress = desk.overview.progress()
    return bool(progress["done"] == progress["total"])


def named(desk: Desk, *numbers: int) -> list[str]:
    ids = {file.name: picture for picture, file in desk.shelf.files.items()}
    return [ids[f"{number:02}.png"] for number in numbers]


def test_what_is_on_screen_comes_first_and_every_picture_once_a_version(desk):
    heard: list[tuple[str, dict[str, Any]]] = []
    stop = desk.listen(lambda kind, content: heard.append((kind, content)))
    (first,), visible = named(desk, 0), named(desk, 10, 7)
    desk.look_at(visible=visible)
    desk.stroke(first, "disc", "object", points=LINE, radius=0.1).result()
    until(lambda: heard[-1][0] == "progress" and heard[-1][1]["done"] == COUNT)
    stop()
    made = [content["id"] for kind, content in heard if kind == "picture" and content["version"] is not None]
    assert set([picture for picture in made if picture != first][:2]) == set(visible)
    assert sorted(made) == sorted([*desk.shelf.files])


def test_all_are_predicted_within_whatever_memory_there_is(photos, tiny):
    desk = opened_desk(tiny.engine, photos, features=200_000)
    desk.change(lambda held: actions.new_label(held, "disc", None)).result()
    (first,) = named(desk, 0)
    desk.stroke(first, "disc", "object", points=LINE, radius=0.1).result()
    until(lambda: all_done(desk))
    assert 0 < desk._reader._read.nbytes <= 200_000 and desk._reader._small.nbytes <= 50_000
    desk.close()


def test_several_pages_strokes_are_all_taken_and_each_gets_its_version(desk):
    pictures = named(desk, 0, 1, 2)

    def paint(i: int) -> int:
        points = [(0.1 + 0.02 * i, 0.3), (0.5, 0.5)]
        return int(desk.stroke(pictures[i % 3], "disc", "object", points=points, radius=0.05).result()["version"])

    with ThreadPoolExecutor(6) as pages:
        versions = list(pages.map(paint, range(18)))
    assert len(set(versions)) == 18
    said = [s for s in desk.held.state.strokes.values() if s.kind == "object"]
    assert len(said) == 18 and desk.project.read() == desk.held
    for _ in range(18):
        desk.undo().result()
    assert not desk.held.state.strokes
    assert desk.overview.project()["labels"][0]["supports"] == 0


def test_what_cannot_be_taught_is_refused_and_nothing_of_it_stays(desk):
    (first,) = named(desk, 0)
    before = desk.project.file.read_bytes()
    with pytest.raises(MaskError):
        desk.stroke(first, "disc", "object", points=[], radius=0.1).result()
    with pytest.raises(PictureNotFoundError):
        desk.stroke("../x", "disc", "object", points=LINE, radius=0.1).result()
    with pytest.raises(ProjectError, match="no mask to accept yet"):
        desk.decide(first, "accepted").result()
    assert desk.project.file.read_bytes() == before


def test_a_picture_that_goes_away_or_breaks_costs_no_other(photos, tiny):
    (photos / "03.png").write_bytes(b"no picture")
    desk = opened_desk(tiny.engine, photos)
    desk.change(lambda held: actions.new_label(held, "disc", None)).result()
    first, broken, gone = named(desk, 0, 3, 5)
    (photos / "05.png").unlink()
    desk.stroke(first, "disc", "object", points=LINE, radius=0.1).result()
    with pytest.raises(IirError):
        desk.stroke(broken, "disc", "object", points=LINE, radius=0.1).result()
    until(lambda: all_done(desk))
    records = {r["id"]: r for r in desk.overview.records("name", None, 0, 100)["pictures"]}
    assert records[broken]["status"] == "broken" and records[broken]["error"]
    assert records[gone]["status"] in ("broken", "predicted")
    assert sum(r["status"] == "predicted" for r in records.values()) >= COUNT - 2
    desk.close()


def test_a_project_among_its_pictures_is_refused(photos, tiny):
    with pytest.raises(ProjectError, match="name another --project"):
        opened_desk(tiny.engine, photos, photos)
    with pytest.raises(PictureNotFoundError, match="no folder"):
        opened_desk(tiny.engine, photos / "none")


def test_the_worker_does_what_is_submitted_before_its_own_steps_and_survives_errors():
    order: list[str] = []
    entered, released = threading.Event(), threading.Event()

    def step() -> bool:
        order.append("step")
        entered.set()
        released.wait(10)
        return len(order) < 6

    worker = Worker(step)
    worker.start()
    entered.wait(10)
    futures = [worker.submit(lambda name=name: order.append(name)) for name in ("a", "b")]
    failing = worker.submit(lambda: 1 // 0)
    released.set()
    for future in futures:
        future.result(10)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    until(lambda: len(order) >= 6)
    worker.stop()
    assert order[:3] == ["step", "a", "b"] and set(order[3:]) == {"step"}
    with pytest.raises(RuntimeError):
        worker.submit(lambda: None)
