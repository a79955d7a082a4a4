"""Which pictures ``iir-sdk segment`` takes, and what their outputs are called."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from iir_sdk.errors import ConfigError, LabelError, OutputError, PictureNotFoundError
from iir_sdk.segmenting.queries import absolute, find_places, named_queries
from iir_sdk.segmenting.supports import Shown, split_label


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "p/a.jpg",
        "p/A.JPG",
        "p/a.png",
        "p/.hidden.jpg",
        "p/notes.txt",
        "p/deep/b.jpg",
        "q/a.jpg",
        "out/m.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*patterns: str, recursive: bool = False, earlier: dict[str, str] | None = None) -> dict[str, str]:
    places = find_places(patterns, recursive=recursive, out=Path("out"))
    return {query.path: query.name for query in named_queries(places, earlier or {})}


def test_a_folder_gives_its_pictures_and_with_r_those_of_all_folders_in_it(tree):
    assert names("p") == {"p/A.JPG": "A", "p/a.jpg": "a_jpg", "p/a.png": "a_png"}
    assert names("p", recursive=True)["p/deep/b.jpg"] == "deep/b"
    assert names("p/deep") == {"p/deep/b.jpg": "b"}
    assert sorted(names(".", recursive=True)) == ["./p/A.JPG", "./p/a.jpg", "./p/a.png", "./p/deep/b.jpg", "./q/a.jpg"]


def test_names_are_relative_to_what_all_queries_lie_in(tree):
    assert names("p/a.jpg", "q/a.jpg") == {"p/a.jpg": "p/a", "q/a.jpg": "q/a"}
    assert names("p/deep", "q") == {"p/deep/b.jpg": "p/deep/b", "q/a.jpg": "q/a"}
    assert names("**/*.jpg")["p/deep/b.jpg"] == "p/deep/b"
    assert names(str(tree / "q" / "a.jpg"), "q/a.jpg", "q") == {str(tree / "q" / "a.jpg"): "a"}


def test_two_queries_of_one_name_have_two_outputs_and_earlier_names_stay(tree):
    found = names("p/a.jpg", "p/a.png", "p/A.JPG")
    assert len({name.casefold() for name in found.values()}) == 3
    earlier = {absolute("q/a.jpg"): "a", absolute("elsewhere/a.jpg"): "a_jpg"}
    assert names("p/a.jpg", "q/a.jpg", earlier=earlier) == {"p/a.jpg": "p/a", "q/a.jpg": "a"}
    assert names("p/a.jpg", earlier=earlier) == {"p/a.jpg": "a_jpg~2"}


def test_lists_and_stdin(tree, monkeypatch):
    lists = tree / "lists"
    lists.mkdir()
    (lists / "near.jpg").write_bytes(b"")
    (lists / "some.txt").write_bytes(b"\xef\xbb\xbf# photos\r\np/a.jpg\r\n\r\nnear.jpg\nq\nnowhere.jpg\np/\xff.jpg\n")
    found = names(f"@{lists / 'some.txt'}")
    assert list(found) == ["p/a.jpg", str(lists / "near.jpg"), "q/a.jpg", "nowhere.jpg", os.fsdecode(b"p/\xff.jpg")]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"p/a.jpg\nq/a.jpg")))
    assert list(names("-")) == ["p/a.jpg", "q/a.jpg"]
    (lists / "bad.txt").write_bytes(b"p/a.jpg\np/\0.jpg\n")
    with pytest.raises(ConfigError, match=r"line 2 of .*bad.txt"):
        names(f"@{lists / 'bad.txt'}")
    with pytest.raises(PictureNotFoundError, match="cannot be read"):
        names("@no_such_list.txt")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([], "no queries"),
        (["p", "nowhere"], "'nowhere': no file or folder there"),
        (["p/*.gif"], r"'p/\*\.gif': no file fits this pattern"),
        (["lonely"], "'lonely': no picture .* say -r"),
        (["out/m.png"], "lie in the output folder"),
        (["@empty.txt"], "the list is empty"),
    ],
)
def test_where_no_picture_is_the_pattern_is_named(tree, patterns, message):
    (tree / "lonely" / "deep").mkdir(parents=True)
    (tree / "empty.txt").write_text("# nothing\n")
    with pytest.raises(PictureNotFoundError, match=message):
        names(*patterns)


def test_masks_of_supports_and_outputs_are_no_queries(tree):
    places = find_places("p", out=tree / "out", masks={absolute("p/a.png")})
    assert absolute("p/a.png") not in places and len(places) == 2
    with pytest.raises(OutputError, match="queries are read from it"):
        find_places("p", out=Path("p"))


def test_a_label_behind_a_colon(tree, monkeypatch):
    (tree / "a:b.png").write_bytes(b"")
    (tree / "m.png").write_bytes(b"")
    assert split_label("m.png") == ("m.png", None, None)
    assert split_label("m.png:cat") == ("m.png", "cat", None)
    assert split_label("m.png:cat=3,5") == ("m.png", "cat", (3, 5))
    assert split_label("m.png:a:b=c") == ("m.png", "a:b=c", None)
    assert split_label("a:b.png") == ("a:b.png", None, None)
    assert split_label("a:b.png:cat") == ("a:b.png", "cat", None)
    assert split_label("no.png:cat") == ("no.png:cat", None, None)
    with pytest.raises(LabelError, match="no label after the colon"):
        split_label("m.png:")
    # As on Windows, where a drive is named by a letter and a colon.
    drive = r"C:\masks\m.png"
    monkeypatch.setattr("iir_sdk.segmenting.supports.is_file", lambda path: path == drive)
    assert split_label(drive) == (drive, None, None)
    assert split_label(rf"{drive}:cat") == (drive, "cat", None)
    assert Shown.from_text("p.jpg", rf"{drive}:cat=3") == Shown("p.jpg", drive, "cat", (3,))
