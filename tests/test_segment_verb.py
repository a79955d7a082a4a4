"""``iir-sdk segment``: whole folders by real weights, resumed, with a table and a page to look over."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter, segment_folder
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import IirError, LabelError, OutputError, PictureNotFoundError
from iir_sdk.formats.registry import WRITERS
from iir_sdk.segmenting.journal import held_folder
from tests.command import run

JOBS = {job.name: job for job in read_jobs()}
EYE = JOBS["eye"]
SUPPORT = ("--support", EYE.support, EYE.support_mask)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An eye twice, once in a folder within, and coins under a name that HTML would read."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(EYE.query, folder / "a.jpg")
    Image.open(EYE.query).save(folder / "a.png")
    shutil.copy(EYE.query, folder / "deep" / "a.jpg")
    shutil.copy(JOBS["coins"].query, folder / "<b> & 'coins'.jpg")
    return folder


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(out: Path) -> dict[str, bytes]:
    """All outputs, without the state of the run and the table, in which times are."""
    files = (f for f in out.rglob("*") if f.is_file() and ".iir" not in f.parts and f.name != "results.csv")
    return {f.relative_to(out).as_posix(): f.read_bytes() for f in files}


def iou(file: Path) -> float:
    mask, truth = np.asarray(Image.open(file)) > 0, EYE.truth()
    return float((mask & truth).sum() / (mask | truth).sum())


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_one_mask_becomes_the_masks_of_a_folder(photos, tmp_path):
    (photos / "deep" / "broken.jpg").write_bytes(b"no picture")
    out, page = tmp_path / "out", tmp_path / "sheet.html"
    code, output = run("segment", photos, "-r", *SUPPORT, "--out", out, "--review", page)
    assert code == 1
    assert "broken.jpg: left out." in output and "4 pictures segmented" in output
    masks = out / "masks" / "object"
    names = ["<b> & 'coins'", "a", "a_jpg" if (masks / "a_jpg.png").exists() else "a_png", "deep/a"]
    assert sorted(f.relative_to(masks).as_posix() for f in masks.rglob("*.png")) == [f"{n}.png" for n in names]
    assert all(iou(masks / f"{name}.png") > 0.48 for name in names[1:])
    assert Image.open(out / "overlay" / "deep" / "a.jpg").size == Image.open(EYE.query).size
    rows = rows_of(out)
    assert rows[0]["file"].endswith("broken.jpg") and rows[0]["error"]
    numbers = [(float(r["score"]), float(r["confidence"]), int(r["area"])) for r in rows[1:]]
    certainties = [score * confidence if area else 1 - score for score, confidence, area in numbers]
    assert certainties == sorted(certainties) and rows[1]["file"].endswith("'coins'.jpg")
    row = next(r for r in rows if r["file"] == str(photos / "a.jpg"))
    mask = np.asarray(Image.open(masks / "a.png")) > 0
    assert int(row["area"]) == mask.sum() and float(row["area_share"]) == pytest.approx(mask.mean(), abs=1e-6)
    x0, y0, x1, y1 = map(int, row["box"].split())
    assert mask[y0:y1, x0:x1].sum() == mask.sum() and mask[y0].any() and mask[:, x1 - 1].any()
    shown = Page(page.read_text(encoding="utf-8"))
    assert shown.open == []
    assert shown.tags.count("article") == 5 and shown.tags.count("img") == 4 and "b" not in shown.tags
    files = [t for t in shown.texts if t.endswith((".jpg", ".png"))]
    assert files == list(dict.fromkeys(r["file"] for r in rows))


def test_a_killed_run_goes_on_where_it_was(photos, tmp_path):
    for i in range(4):
        shutil.copy(EYE.query, photos / f"more{i}.jpg")
    whole, out = tmp_path / "whole", tmp_path / "out"
    words = ["segment", str(photos), "-r", *map(str, SUPPORT), "--batch-size", "1", "--threads", "1"]
    assert run(*words, "--out", whole)[0] == 0
    journal = out / ".iir" / "journal.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "iir_sdk", *words, "--out", str(out)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_bytes()
    done = [json.loads(line)["key"] for line in before[: before.rfind(b"\n")].splitlines()[1:]]
    assert 2 <= len(done) < 8, "killed too late to tell anything"
    for file in out.rglob("*.png"):
        Image.open(file).load()
    (out / "masks" / "object" / ".iir-0123.png").write_bytes(b"the start of a file")
    with journal.open("ab") as file:
        file.write(b'{"key": "the start of a li')
    code, output = run(*words, "--out", out)
    assert code == 0 and f"{8 - len(done)} pictures segmented, {len(done)} were done before" in output
    assert contents(out) == contents(whole)
    keys = [json.loads(line)["key"] for line in journal.read_bytes().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == 8 and keys[: len(done)] == done
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(out)]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(whole)]


def test_only_what_changed_or_failed_is_done_again(photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    support = [(EYE.support, EYE.support_mask)]
    first = segment_folder(photos, out, supports=support)
    assert (first.segmented, first.present, len(first.errors)) == (3, 0, 1)
    shutil.copy(EYE.query, photos / "broken.jpg")
    (out / "masks" / "object" / "a.png").unlink()
    os.utime(photos / "<b> & 'coins'.jpg", ns=(1, 1))
    second = segment_folder(photos, out, supports=support)
    assert (second.segmented, second.present, second.errors) == (3, 1, {})
    (photos / "a.png").write_bytes(b"no more")
    third = segment_folder(photos, out, supports=support)
    assert list(third.errors) == [str(photos / "a.png")]
    assert not list(out.rglob("a_png.*")) and len(list((out / "masks").rglob("*.png"))) == 3
    (photos / "a.png").unlink()
    assert segment_folder(photos, out, supports=support).errors == {}


def test_results_of_other_settings_are_never_mixed(photos, tmp_path, embedded):
    out = tmp_path / "out"
    settings = {"segmenter": embedded, "supports": [(EYE.support, EYE.support_mask)]}
    segment_folder(photos / "a.jpg", out, **settings)
    before = contents(out)
    for changed, named in (
        ({"threshold": 0.4}, "threshold=0.5, not 0.4"),
        ({"counterexamples": [JOBS["coins"].query]}, "other supports"),
        ({"supports": [(EYE.support, EYE.support_mask, "eye")]}, "other supports, labels="),
        ({"formats": ["masks"]}, "formats="),
        ({"tile": "auto"}, "tile=None, not 'auto'"),
        ({"min_area": np.float32(2)}, r"min_area=0, not 2\.0"),
        ({"keep_largest": True}, "keep_largest=False, not True"),
        ({"segmenter": None, "weights": "iir-lite0"}, "other weights"),
    ):
        with pytest.raises(OutputError, match=rf"results of a run with .*{named}.*--overwrite"):
            segment_folder(photos / "a.jpg", out, **{**settings, **changed})
        assert contents(out) == before
    shutil.rmtree(photos / "deep")
    report = segment_folder(photos, out, **settings, threshold=0.4, formats=["masks"], overwrite=True)
    assert (report.segmented, report.present) == (3, 0) and not (out / "overlay").exists()
    assert segment_folder(photos, out, **settings, threshold=0.4, formats=["masks"]).present == 3


def test_two_runs_do_not_write_into_one_folder(photos, tmp_path, embedded):
    out = tmp_path / "out"
    with held_folder(out), pytest.raises(OutputError, match="another run is writing"):
        segment_folder(photos, out, segmenter=embedded, supports=[(EYE.support, EYE.support_mask)])


def test_a_full_disk_is_said_and_loses_nothing(photos, tmp_path, monkeypatch):
    out, files = tmp_path / "out", []
    write_bytes, replaced = Path.write_bytes, Path.replace

    def full(what: Path) -> None:
        files.append(what)
        if len(files) > 12:
            raise OSError(28, "No space left on device")

    support = [(EYE.support, EYE.support_mask)]
    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", lambda self, content: full(self) or write_bytes(self, content))
        disk.setattr(Path, "replace", lambda self, target: full(self) or replaced(self, target))
        with pytest.raises(OutputError, match=r"No space left on device.* 2 pictures are done and stay"):
            segment_folder(photos, out, supports=support, batch_size=1)
    report = segment_folder(photos, out, supports=support, batch_size=1)
    assert (report.segmented, report.present) == (1, 2)


def test_a_file_that_alone_cannot_be_written_costs_no_other_its_masks(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    segment_folder(photos / "deep", out, supports=[(EYE.support, EYE.support_mask)], formats=["masks"])
    # A folder where the file is to be.
    (out / "masks" / "object" / "a_jpg.png").mkdir()
    (out / "masks" / "object" / "b.png").mkdir()
    shutil.copy(EYE.query, photos / "deep" / "b.jpg")
    shutil.copy(EYE.query, photos / "deep" / "c.jpg")
    report = segment_folder(photos / "deep", out, supports=[(EYE.support, EYE.support_mask)], formats=["masks"])
    assert list(report.errors) == [str(photos / "deep" / "b.jpg")] and "is a folder" in report.rows[0].error
    assert (report.segmented, report.present) == (1, 1)


@pytest.mark.skipif(os.name != "posix", reason="names of any bytes, and pipes")
def test_files_of_odd_names_and_kinds_cost_no_other_its_masks(tmp_path, embedded):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in (b"line\nbreak.jpg", b"back\\slash.jpg", b"\xff.jpg", b"x.y.jpg"):
        shutil.copy(EYE.query, photos / os.fsdecode(name))
    os.mkfifo(photos / "pipe.jpg")
    (photos / "link.jpg").symlink_to("nowhere")
    settings = {"segmenter": embedded, "supports": [(EYE.support, EYE.support_mask)], "recursive": True}
    report = segment_folder(photos, tmp_path / "out", **settings, formats=["masks", "voc"], review=tmp_path / "s.html")
    assert sorted(Path(file).name for file in report.errors) == ["link.jpg", "pipe.jpg"]
    masks = sorted(f.name for f in (tmp_path / "out" / "masks" / "object").iterdir())
    assert masks == ["%FF.png", "back%5Cslash.png", "line%0Abreak.png", "x.y.png"]
    assert segment_folder(photos, tmp_path / "out", **settings, formats=["masks", "voc"]).present == 4
    report = segment_folder(photos, tmp_path / "coco", **settings, formats=["coco"])
    assert len(report.errors) == 3 and any("rename the picture" in error for error in report.errors.values())


def test_an_interrupted_run_leaves_whole_files_and_goes_on(photos, tmp_path):
    # So many that it is still at work when a busy machine lets this process look.
    for i in range(57):
        shutil.copy(EYE.query, photos / f"more{i}.jpg")
    out = tmp_path / "out"
    words = ["segment", str(photos), *map(str, SUPPORT), "--batch-size", "1", "--threads", "1", "--out", str(out)]
    words += ["--weights", "iir-lite0"]
    journal = out / ".iir" / "journal.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "iir_sdk", *words],
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        # Where tests run in a shell's background, interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    messages = process.communicate()[1]
    assert process.returncode == 130 and "the same command goes on behind it" in messages
    done = len(journal.read_bytes().splitlines()) - 1
    assert 1 <= done < 60 and len(rows_of(out)) == done
    assert not list(out.rglob(".iir-*")) and len(list((out / "masks").rglob("*.png"))) == done
    assert f"{60 - done} pictures segmented, {done} were done before" in run(*words)[1]


def test_folders_that_are_not_for_outputs(photos, tmp_path, embedded):
    support = {"supports": [(EYE.support, EYE.support_mask)], "segmenter": embedded}
    with pytest.raises(OutputError, match="queries are read from it"):
        segment_folder(photos, photos, **support, overwrite=True)
    with pytest.raises(OutputError, match=r"holds 'a.jpg' and no journal .*--overwrite"):
        segment_folder(photos, photos / "deep", **support)
    out = photos / "out"
    for _ in range(2):
        report = segment_folder(photos, out, recursive=True, **support)
        assert report.segmented + report.present == 4
    assert (out / "masks" / "object" / "deep" / "a.png").is_file()
    assert not len(embedded.supports)


def test_settings_that_do_not_fit_are_told_before_anything_is_written(photos, tmp_path, embedded):
    out, support = tmp_path / "out", [(EYE.support, EYE.support_mask)]
    for wrong in (
        {"formats": ["mask"]},
        {"formats": []},
        {"threshold": 2},
        {"min_area": -1},
        {"batch_size": 0},
        {"tile": 3},
        {"supports": []},
        {"supports": "photo.jpg"},
        {"supports": [("photo.jpg",)]},
        {"counterexamples": "photo.jpg"},
        {"weights": "iir-lite0"},
        {"labels": ["objekt"]},
        {"labels": "object"},
        {"counterexamples": [(EYE.query, "objekt")]},
        {"supports": [(EYE.support, JOBS["coins"].support_mask)]},
        {"supports": [(EYE.support, tmp_path / "none.png")]},
    ):
        with pytest.raises(IirError):
            segment_folder(photos, out, **{"supports": support, "segmenter": embedded, **wrong})
        assert not out.exists(), wrong


def test_a_support_that_does_not_fit_is_named(photos, tmp_path):
    coins = JOBS["coins"]
    code, output = run("segment", photos, "--support", EYE.support, coins.support_mask, "--out", tmp_path / "out")
    assert code == 1 and str(coins.support_mask) in output and str(EYE.support) in output
    with pytest.raises(LabelError, match="of which label"):
        supports = [(EYE.support, EYE.support_mask, "eye"), (coins.support, coins.support_mask, "coin")]
        segment_folder(photos, tmp_path / "out", supports=supports, counterexamples=[EYE.query])
    with pytest.raises(PictureNotFoundError, match="no file or folder"):
        segment_folder(tmp_path / "nowhere", tmp_path / "out", supports=[(EYE.support, EYE.support_mask)])


def test_masks_are_those_of_predict_and_cleaned(photos, tmp_path, embedded):
    taught = FewShotSegmenter(embedded.engine)
    taught.add_support(EYE.support, EYE.support_mask)
    coins = photos / "<b> & 'coins'.jpg"
    kinds = {
        "plain": {},
        "tiled": {"tile": 100},
        "cleaned": {"fill_holes": True, "min_area": 0.001, "keep_largest": True},
    }
    for name, settings in kinds.items():
        segment_folder(coins, tmp_path / name, segmenter=taught, formats=["masks"], threshold=0.2, **settings)
        mask = np.asarray(Image.open(next((tmp_path / name / "masks" / "object").iterdir()))) > 0
        if name == "cleaned":
            expected = taught.predict(coins, threshold=0.2).cleaned(**settings)
        else:
            expected = taught.predict(coins, threshold=0.2, **settings)
        assert (mask == expected.mask).all()


def test_the_command_names_every_format():
    listed = " ".join(run("segment", "--help")[1].split()).partition("What to write: ")[2].partition(".")[0]
    assert set(WRITERS) <= set(listed.split(", "))
