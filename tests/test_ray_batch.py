"""Pictures by Ray's workers into Parquet: every row once, whatever is killed; on a cluster of two local workers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is an extra")

import pyarrow as pa
import ray
from pyarrow import parquet

import iir_sdk.ray
from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import OutputError
from iir_sdk.formats import rle
from iir_sdk.ray import Workers, segment
from tests import ray_workers
from tests.command import run

EYE = next(job for job in read_jobs() if job.name == "eye")
SUPPORT = [(EYE.support, EYE.support_mask)]
ONE = Workers(count=1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ray on this machine, of its own; the address for processes that join."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def taught() -> FewShotSegmenter:
    segmenter = FewShotSegmenter("iir-lite0", device="cpu", threads=1)
    segmenter.add_support(*SUPPORT[0], "object")
    return segmenter


def png_without_end(file: Path) -> None:
    """A header of 30,000 x 30,000 pixels, and data that never comes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    length, check = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(header))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + length + header + check + struct.pack(">I", 2**31 - 1) + b"IDAT")


def rows_of(out: Path) -> list[dict[str, Any]]:
    files = sorted(out.glob("*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def worker_pids() -> list[int]:
    """Of actors that segment, which Ray names after their class."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes()
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if words.startswith(b"ray::") and b"PartWorker" in words and ours(parent):
                pids.append(int(process.name))
    return pids


def ours(pid: int) -> bool:
    """Whether a process descends from this one: another cluster may be on the machine."""
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def test_neither_a_killed_driver_nor_a_killed_worker_loses_or_doubles_a_row(cluster, taught, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for i in range(36):
        shutil.copy(EYE.query, photos / f"{i:02}.jpg")
    (photos / "no_picture.jpg").write_bytes(b"no picture")
    (photos / "nothing.png").write_bytes(b"")
    (photos / "cut.jpg").write_bytes(EYE.query.read_bytes()[:3000])
    png_without_end(photos / "endless.png")
    with (photos / "vast.png").open("wb") as vast:
        vast.truncate(10 << 30)
    (photos / "list.txt").write_text(f"{photos}\n{photos / 'missing.jpg'}\n")
    arguments = {"supports": SUPPORT, "weights": "iir-lite0", "part_size": 4, "batch_size": 2, "progress": False}
    code = (
        "import sys, json, iir_sdk.ray as r; a = json.loads(sys.argv[1]);"
        "r.segment(a.pop('pictures'), a.pop('out'), cluster=r.Workers(a.pop('address'), 1), **a)"
    )
    words = {**arguments, "supports": [list(map(str, SUPPORT[0]))], "pictures": f"@{photos / 'list.txt'}"}
    given = json.dumps({**words, "out": str(out), "address": cluster})
    driver = subprocess.Popen([sys.executable, "-c", code, given], stderr=subprocess.DEVNULL)
    wait_for(lambda: driver.poll() is not None or len(list(out.glob("part-*"))) > 1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not worker_pids())
    before = {row["id"] for row in rows_of(out)}
    assert 0 < len(before) < 42, "killed too late to tell anything"
    first = len(list(out.glob("part-*")))

    def kill_one() -> None:
        wait_for(lambda: len(list(out.glob("part-*"))) > first and worker_pids())
        os.kill(worker_pids()[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = segment(f"@{photos / 'list.txt'}", out, **arguments)
    killer.join()
    rows = rows_of(out)
    wanted = {str(file) for file in photos.glob("*.*g")} | {str(photos / "missing.jpg")}
    assert Counter(row["id"] for row in rows) == Counter(wanted)
    assert (report.segmented, report.present, report.rows) == (42 - len(before), len(before), 42)
    failed = {Path(row["id"]).name: row["error"] for row in rows if row["error"]}
    assert set(failed) == {"no_picture.jpg", "nothing.png", "cut.jpg", "endless.png", "vast.png", "missing.jpg"}
    assert report.failed == 6 and set(report.errors) == {row["id"] for row in rows if row["error"]}
    mask = taught.predict(EYE.query).mask
    for row in rows:
        if not row["error"]:
            decoded = rle.decode({"size": row["size"], "counts": row["counts"]}, mask.shape)
            assert (decoded == mask).all() and row["area"] == mask.sum() and row["label"] == "object"
            left, top, right, bottom = row["box"]
            assert decoded[top:bottom, left:right].sum() == row["area"] > 0
    # All is there: no worker is started, and no other settings are taken.
    again = segment(f"@{photos / 'list.txt'}", out, **arguments)
    assert (again.segmented, again.present) == (0, 42)
    with pytest.raises(OutputError, match=r"holds results of a run with threshold=0.5, not 0.25"):
        segment(photos, out, **{**arguments, "threshold": 0.25})


def test_a_picture_that_kills_workers_or_takes_too_much_memory_is_a_row_with_an_error(
    cluster, taught, tmp_path, monkeypatch
):
    monkeypatch.setattr(iir_sdk.ray.batch, "PartWorker", ray_workers.FragileWorker)
    names = ["a", "b", "killer", "c", "d", "huge", "e", "f"]
    table = pa.table({"name": names, "file": [EYE.query.read_bytes()] * 8, "other": range(8)})
    parquet.write_table(table, tmp_path / "in.parquet")
    columns = {"id_column": "name", "picture_column": "file"}
    out = tmp_path / "out"
    settings = {"segmenter": taught, "cluster": ONE, "progress": False}
    report = segment(tmp_path / "*.parquet", out, part_size=4, **columns, **settings)
    rows = rows_of(out)
    assert sorted(row["id"] for row in rows) == sorted(names) and (report.segmented, report.failed) == (8, 2)
    errors = {row["id"]: row["error"] for row in rows if row["error"]}
    assert "has killed its worker 1 times" in errors["killer"] and "takes more memory than there is" in errors["huge"]


def test_a_full_disk_ends_a_call_that_the_next_one_goes_on_with(cluster, taught, tmp_path, monkeypatch):
    monkeypatch.setattr(iir_sdk.ray.batch, "PartWorker", ray_workers.FullDiskWorker)
    pixels = np.asarray(taught.predict(EYE.query).image)
    given = ray.data.from_items([{"id": str(i), "image": pixels} for i in range(6)], override_num_blocks=3)
    settings = {"segmenter": taught, "cluster": ONE, "progress": False, "part_size": 2}
    with pytest.raises(OutputError, match=r"No space left on device.*make room, and the same call goes on"):
        segment(given, tmp_path / "out", **settings)
    assert len(rows_of(tmp_path / "out")) == 2
    monkeypatch.setattr(iir_sdk.ray.batch, "PartWorker", ray_workers.BrokenWorker)
    odd = given.union(ray.data.from_items([{"id": "odd", "image": pixels}]))
    report = segment(odd, tmp_path / "out", **settings)
    assert (report.segmented, report.present, report.failed) == (5, 2, 1)
    assert report.errors == {"odd": "ZeroDivisionError: an odd one"}
    assert sorted(row["id"] for row in rows_of(tmp_path / "out")) == [*"012345", "odd"]


def test_the_verb_writes_the_same_files_by_ray(cluster, tmp_path):
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    for i in range(5):
        shutil.copy(EYE.query, photos / f"{i}.jpg")
    shutil.copy(EYE.query, photos / "deep" / "0.jpg")
    (photos / "broken.jpg").write_bytes(b"no picture")
    words = ["segment", str(photos), "-r", "--support", *map(str, SUPPORT[0]), "--weights", "iir-lite0"]
    words += ["--format", "masks,coco", "--batch-size", "2", "--threads", "1"]
    code, output = run(*words, "--out", tmp_path / "ray", "--review", tmp_path / "page.html", "--ray", "--workers", "1")
    assert code == 1 and "6 pictures segmented" in output and "broken.jpg: left out." in output
    assert run(*words, "--out", tmp_path / "plain")[0] == 1
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")
    assert (tmp_path / "page.html").read_text().count("<article>") == 7
    # Either goes on where the other was.
    (tmp_path / "ray" / "masks" / "object" / "1.png").unlink()
    assert "1 pictures segmented, 5 were done before" in run(*words, "--out", tmp_path / "ray")[1]


def contents(out: Path) -> dict[str, bytes]:
    """All outputs, without the state of the run, and the table without its times."""
    files = (f for f in out.rglob("*") if f.is_file() and ".iir" not in f.parts)
    held = {f.relative_to(out).as_posix(): f.read_bytes() for f in files}
    lines = held.pop("results.csv").decode().splitlines()
    return {**held, "results.csv": "\n".join(",".join(line.split(",")[:-2]) for line in lines).encode()}
