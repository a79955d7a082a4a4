"""What a hostile project, a disk that goes or is full, and strange names do to the page's server: little."""

from __future__ import annotations

import errno
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import LabelError, MaskError, ProjectError
from iir_sdk.segmenting.queries import find_places
from iir_sdk.web.project import actions
from iir_sdk.web.project.desk import Desk
from iir_sdk.web.project.file import Held, ProjectFolder
from iir_sdk.web.project.opening import opened_desk
from iir_sdk.web.server.app import create_app
from iir_sdk.web.server.door import Door
from tests.conftest import draw_scene
from tests.waiting import until

LINE = [(0.4, 0.5), (0.6, 0.5)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(draw_scene(np.random.default_rng(i))[0]).save(folder / f"{i}.png")
    return folder


def opened(photos: Path, checkpoint: Path) -> Desk:
    return opened_desk(FewShotSegmenter(checkpoint, device="cpu", threads=1).engine, photos)


def test_pictures_of_a_disk_that_comes_back_are_read_again(photos, tiny_checkpoint, monkeypatch):
    """They were broken until the server was started anew."""
    elsewhere = photos.with_name("elsewhere")

    def listed_and_gone(*args: Any, **options: Any) -> Any:
        places = find_places(*args, **options)
        photos.rename(elsewhere)
        return places

    monkeypatch.setattr("iir_sdk.web.project.opening.find_places", listed_and_gone)
    desk = opened(photos, tiny_checkpoint)
    try:
        ids = list(desk.shelf.files)
        until(lambda: desk.overview.project()["counts"]["broken"] == 4, seconds=30)
        desk.look_at(visible=ids)
        assert desk.overview.project()["counts"]["broken"] == 4
        elsewhere.rename(photos)
        desk.look_at(visible=ids)
        until(lambda: desk.overview.project()["counts"]["broken"] == 0, seconds=30)
        desk.change(lambda held: actions.new_label(held, "disc", None)).result()
        desk.stroke(ids[0], "disc", "object", points=LINE, radius=0.1).result()
        until(lambda: desk.overview.project()["counts"]["predicted"] == 4, seconds=30)
    finally:
        desk.close()


def test_a_projects_file_leads_to_nothing_outside_its_folder(tmp_path):
    folder = ProjectFolder(tmp_path / "p.iir-project")
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    for outside in ("../../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(ProjectError, match="no name of a mask"):
            folder.read_mask(outside)
    for outside in ("../../secret.png", "0123456789abcdef/../../../secret.png", "0123456789abcdef/.."):
        folder.write(Held())
        values = json.loads(folder.file.read_text())
        folder.file.write_text(json.dumps({**values, "uploads": {outside: "x.png"}}))
        with pytest.raises(ProjectError, match="no name of a picture"):
            folder.read()
    mask = folder.write_mask(np.eye(4, dtype=np.uint8))
    assert (folder.read_mask(mask) == np.eye(4)).all()
    upload = folder.write_upload(b"x", "a b.png")
    folder.write(Held(uploads={upload: "a b.png"}))
    assert folder.read().uploads == {upload: "a b.png"}
    folder.close()


def test_an_export_onto_a_full_disk_says_so_and_leaves_nothing(photos, tiny_checkpoint, monkeypatch):
    desk = opened(photos, tiny_checkpoint)

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    try:
        http = TestClient(create_app(desk, Door()), base_url="http://127.0.0.1:8765", raise_server_exceptions=False)
        desk.change(lambda held: actions.new_label(held, "disc", None)).result()
        desk.stroke(next(iter(desk.shelf.files)), "disc", "object", points=LINE, radius=0.1).result()
        with monkeypatch.context() as patch:
            patch.setattr(zipfile.ZipFile, "write", full)
            answer = http.get("/api/export?format=map&what=all")
        assert answer.status_code == 507 and "make room" in answer.json()["error"]
        assert list(desk.project.exports.iterdir()) == []
        assert http.get("/api/export?format=map&what=all").status_code == 200
    finally:
        desk.close()


@pytest.mark.parametrize("name", [".", "..", " ... ", "/" * 100, "👩" * 100])
def test_labels_that_no_address_or_folder_holds_are_refused(name):
    with pytest.raises(LabelError, match="choose a shorter name"):
        actions.new_label(Held(), name, None)
    held = Held()
    assert actions.new_label(held, "../" + "👩" * 40, None).edits[0].after


def test_a_stroke_is_no_longer_than_the_page_draws_it():
    """Twenty thousand points of the widest brush kept the one thread that computes for seconds."""
    held = Held()
    held.state = held.state.after(actions.new_label(held, "disc", None))
    with pytest.raises(MaskError, match="needs 1 to 2000"):
        actions.new_stroke(held, "a", "disc", "object", points=[(0.1, 0.1)] * 2001, radius=0.5)
