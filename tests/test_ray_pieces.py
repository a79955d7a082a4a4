"""Pieces of the batches by Ray without a cluster: stores, lists of files, parts, halved batches, attempts."""

from __future__ import annotations

import pickle
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is an extra")

from click.testing import CliRunner

from iir_sdk.cli.main import main
from iir_sdk.errors import (
    ConfigError,
    ImageError,
    MemoryShortageError,
    MissingDependencyError,
    OutputError,
    PictureNotFoundError,
)
from iir_sdk.pictures.load import Picture
from iir_sdk.ray import Workers, segment
from iir_sdk.ray.attempts import Attempts
from iir_sdk.ray.cluster import as_text, connected, from_text
from iir_sdk.ray.items import Item, items_of, read_items
from iir_sdk.ray.parts import KnownIds, Parts, part_name
from iir_sdk.ray.sources import Columns, listed
from iir_sdk.ray.store import Store, fetched
from iir_sdk.ray.workers import Worker
from iir_sdk.segmenting.journal import Stamp
from iir_sdk.segmenting.memory import within_memory
from iir_sdk.segmenting.queries import Query
from iir_sdk.segmenting.reading import Read


class Shouting(Worker[str, str]):
    """Makes words loud; has died of some."""

    def __init__(self, attempts: Attempts) -> None:
        self.notes: Any = LocalNotes(attempts)
        self.failure = ""

    def open(self, job: Any) -> None: ...

    def answers(self, batch: Any) -> list[dict[str, Any]]:
        return [{"words": self.made_safely(batch["id"], batch["id"])}]

    def made_of(self, given: list[str]) -> list[str]:
        if "deadly" in given:
            raise KeyboardInterrupt
        if "odd" in given:
            raise ZeroDivisionError("odd")
        if "heavy" in given:
            raise MemoryError
        return [word.upper() for word in given]

    def left_out(self, given: str, error: Any) -> list[str]:
        return [f"{given}: {error}"]


class LocalNotes:
    """As a worker's notes, in this process."""

    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts
        self.begin, self.end = attempts.begin, attempts.end

    @contextmanager
    def alone(self, picture: str) -> Any:
        yield self.attempts.begin_picture(picture)
        self.attempts.end_picture(picture)


def test_a_batch_that_killed_is_done_one_at_a_time_and_its_killer_left_out():
    attempts = Attempts()
    words = ["a", "deadly", "b"]
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            Shouting(attempts).made_safely(words, words)
    made = Shouting(attempts).made_safely(words, words)
    assert made[0] == "A" and made[2] == "B" and "has killed its worker 2 times" in made[1]
    assert (attempts.begun, attempts.progress()) == ({}, 3)
    # What fails in a way that nobody foresaw costs itself alone.
    assert Shouting(attempts).made_safely(["a", "odd"], ["a", "odd"]) == ["A", "odd: ZeroDivisionError: odd"]
    (light, heavy) = Shouting(attempts).made_safely(["a", "heavy"], ["a", "heavy"])
    assert light == "A" and "heavy: it takes more memory than there is (MemoryError); shrink it" in heavy


def read(name: str) -> Read:
    return Read(Query(name, ""), Picture(np.zeros((4, 4, 3), np.uint8)), Stamp(0, 0), 0.0)


@pytest.mark.parametrize(
    "shortage",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_where_memory_is_short_batches_are_halved_down_to_single_pictures(shortage):
    sizes = []

    def segment_reads(batch: list[Read]) -> list[Any]:
        sizes.append(len(batch))
        if len(batch) > 2 or batch[0].query.path == "huge":
            raise shortage
        return [(one, "done", 0.0) for one in batch]

    names = ["a", "b", "c", "d", "huge", "e"]
    outcomes = within_memory(segment_reads)([read(name) for name in names])
    assert [one.query.path for one, _, _ in outcomes] == names and max(sizes) == 6
    (left,) = [made for _, made, _ in outcomes if made != "done"]
    assert isinstance(left, MemoryShortageError) and "'huge' takes more memory than there is" in str(left)
    with pytest.raises(RuntimeError, match="another fault"):
        within_memory(lambda batch: (_ for _ in ()).throw(RuntimeError("another fault")))([read("a")])


def test_stores_write_whole_files_or_none_and_say_what_is_wrong(tmp_path):
    store = pickle.loads(pickle.dumps(Store.of(f"file://{tmp_path}/out/")))
    assert store == Store(str(tmp_path / "out")) and store.names() == [] and store.read("a") is None
    store.write("deep/a", b"1")
    store.write("b.parquet", b"2")
    assert store.names() == ["b.parquet"] and store.read("deep/a") == b"1" and store.holds("b.parquet")
    store.remove("b.parquet")
    assert not store.holds("b.parquet") and not list(tmp_path.rglob(".iir-*"))
    with pytest.raises(ConfigError, match="'nosuch://bucket/a' names no file system"):
        fetched("nosuch://bucket/a")
    with pytest.raises(PictureNotFoundError, match="no file at"):
        fetched(f"file://{tmp_path}/none.jpg")
    with (tmp_path / "vast.jpg").open("wb") as vast:
        vast.truncate(10 << 30)
    with pytest.raises(ImageError, match="10,737,418,240 bytes; at most 1,073,741,824 are fetched"):
        fetched(f"file://{tmp_path}/vast.jpg")


def test_a_store_by_uri_keeps_parts_and_settings():
    # Pyarrow's own file system in memory.
    parts = Parts(Store.of("mock:///out"))
    assert not parts.store.local and parts.names() == [] and parts.pictures_in("part-1.parquet") is None
    parts.start({"threshold": 0.5}, overwrite=False)
    parts.write("part-1.parquet", [{"id": "a", "label": "object", "box": (0, 1, 2, 3)}, {"id": "b", "error": "broken"}])
    assert parts.names() == ["part-1.parquet"] and parts.pictures_in("part-1.parquet") == 2
    assert parts.table("part-1.parquet")["box"].to_pylist() == [[0, 1, 2, 3], None]
    assert parts.without_errors(parts.present()).ids() == ["a"]
    with pytest.raises(OutputError, match=r"a run with threshold=0.5, not 0.7"):
        parts.start({"threshold": 0.7}, overwrite=False)
    parts.start({"threshold": 0.7}, overwrite=True)
    assert parts.names() == []


def test_files_are_listed_by_paths_and_uris(tmp_path):
    for name in ("a.jpg", "b.png", "c.txt", "deep/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    uri = f"file://{tmp_path}"
    assert listed([uri], recursive=False, out="") == [f"{uri}/a.jpg", f"{uri}/b.png"]
    assert listed([f"{uri}/"], recursive=True, out="")[-1] == f"{uri}/deep/d.jpg"
    assert listed([f"{uri}/*.png", f"{uri}/a.jpg", str(tmp_path / "deep")], recursive=False, out="s3://bucket/out") == [
        str(tmp_path / "deep" / "d.jpg"),
        f"{uri}/b.png",
        f"{uri}/a.jpg",
    ]
    with pytest.raises(PictureNotFoundError, match="no picture"):
        listed([f"{uri}/none*"], recursive=False, out="")


def test_rows_become_pictures(scene, tmp_path):
    picture, _ = scene
    batch = {"id": np.array([7, 8, 9]), "image": [picture, None, picture[:, :, 0]], "other": [1, 2, 3]}
    (reads,) = read_items(items_of(batch, Columns()), 4)
    assert [one.query.path for one in reads] == ["7", "8", "9"]
    assert (reads[0].outcome.pixels == picture).all() and reads[2].outcome.size == picture.shape[:2]
    assert "the row has no picture" in str(reads[1].outcome)
    (reads,) = read_items([Item("a", f"file://{tmp_path}/none.jpg"), Item("b", b"")], 4)
    assert isinstance(reads[0].outcome, PictureNotFoundError) and isinstance(reads[1].outcome, ImageError)
    with pytest.raises(ConfigError, match=r"columns \['id', 'other'\], and not any of bytes, path, image"):
        items_of({"id": [1], "other": [1]}, Columns())
    with pytest.raises(ConfigError, match=r"and not 'key': name yours by id_column="):
        items_of(batch, Columns("key"))


def test_what_an_abandoned_worker_wrote_late_goes_and_what_is_there_twice_is_told(tmp_path):
    parts = Parts(Store.of(tmp_path))
    row = {"label": "object", "score": 1.0}
    parts.write("part-1.parquet", [{**row, "id": "a"}, {**row, "id": "b"}])
    parts.write("part-0.parquet", [{**row, "id": "b"}, {**row, "id": "c"}])
    tidy = parts.without_doubles(parts.present(), ["part-1.parquet"])
    assert tidy.ids() == ["c", "a", "b"] and tidy.pictures() == {"part-0.parquet": 1, "part-1.parquet": 2}
    tidy.check({"part-1.parquet": 2}, ["a", "b", "c"])
    with pytest.raises(OutputError, match="1 pictures are missing from the output: 'd'"):
        tidy.check({}, ["a", "d"])
    with pytest.raises(OutputError, match=r"'part-2.parquet' is to hold 3 pictures and holds 0"):
        tidy.check({"part-2.parquet": 3}, None)
    parts.write("part-3.parquet", [{"id": "d", "error": "broken"}, {**row, "id": "e"}])
    parts.write("part-4.parquet", [{"id": "f", "error": "broken"}])
    assert parts.present().errors() == {"d": "broken", "f": "broken"}
    assert parts.without_errors(parts.present()).ids() == ["c", "a", "b", "e"]
    parts.write("part-2.parquet", [{**row, "id": "a"}])
    with pytest.raises(OutputError, match="1 pictures are there twice: 'a'"):
        parts.without_doubles(parts.present(), ["part-1.parquet", "part-2.parquet"]).check({}, None)


def test_ids_are_known_by_digests_and_name_their_part():
    ids = [f"s3://bucket/{i}.jpg" for i in range(1000)]
    known = KnownIds.of(ids[::2] + ids[::2])
    assert len(known) == 500 and known.hold(ids).tolist() == [True, False] * 500
    assert not KnownIds.of([]).hold(["a"]).any() and KnownIds.of(["a"]).hold([]).size == 0
    assert part_name(["a", "b"]) == part_name(["b", "a"]) != part_name(["ab"])


def test_outputs_that_no_run_wrote_and_arguments_out_of_range_are_refused(tmp_path):
    (tmp_path / "mine.parquet").write_bytes(b"1")
    with pytest.raises(OutputError, match=r"holds 'mine.parquet' and no settings of a run"):
        Parts(Store.of(tmp_path)).start({}, overwrite=False)
    parts = Parts(Store.of(tmp_path / "out"))
    parts.start({"threshold": 0.5}, overwrite=False)
    parts.start({"threshold": 0.5}, overwrite=False)
    with pytest.raises(OutputError, match=r"a run with threshold=0.5, not 0.7"):
        parts.start({"threshold": 0.7}, overwrite=False)
    parts.start({"threshold": 0.7}, overwrite=True)
    for wrong in ({"count": 0}, {"count": (3, 2)}, {"num_gpus": -1}, {"num_cpus": 0}):
        with pytest.raises(ConfigError):
            Workers(**wrong)
    with pytest.raises(ConfigError, match="part_size=0"):
        segment("a.jpg", tmp_path / "new", part_size=0)
    assert isinstance(from_text(as_text(OutputError("full: a"))), OutputError)
    assert str(from_text(as_text(OutputError("full: a")))) == "full: a"


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'iir-sdk\[ray\]'"), connected(None):
        pass
    runner = CliRunner()
    wrong = runner.invoke(main, ["segment", "--ray", str(tmp_path), "--out", str(Path(tmp_path) / "out")])
    assert wrong.exit_code == 2 and "is no address of a cluster" in wrong.output
    wrong = runner.invoke(main, ["segment", str(tmp_path), "--out", str(tmp_path / "out"), "--workers", "2"])
    assert wrong.exit_code == 2 and "say --ray, too" in wrong.output
