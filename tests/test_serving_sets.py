"""Sets in a folder that several processes share; here each process is another SetFolder."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import (
    BusyError,
    ImageError,
    OutputError,
    RequestError,
    RequestTooLargeError,
    SupportError,
    SupportSetError,
    SupportSetNotFoundError,
)
from iir_sdk.serving.set_folder import SetFolder
from iir_sdk.web.api.answers import set_out
from iir_sdk.web.api.support_sets import Example, SupportSets
from tests.test_api_support_sets import JOBS, example


@pytest.fixture
def pair(tiny_segmenter: FewShotSegmenter, tmp_path: Path) -> tuple[SetFolder, SetFolder]:
    return SetFolder(tiny_segmenter, tmp_path / "sets"), SetFolder(tiny_segmenter, tmp_path / "sets")


def test_what_one_process_changes_the_other_sees(pair):
    one, other = pair
    made = one.create([example()], "coins")
    assert dict(other.get("coins").supports) == {"coin": 1}
    before = other.get("coins")
    assert other.get("coins") is before, "read once while the file stays the same"
    other.add("coins", [example("flag", "flag")])
    assert dict(one.get("coins").supports) == {"coin": 1, "flag": 1}
    assert dict(made.supports) == {"coin": 1}, "predictions under way go on as they began"
    query = JOBS["coins"].query
    results = [folder.get("coins").segmenter.predict(query) for folder in pair]
    assert np.array_equal(results[0].leads, results[1].leads)
    one.forget("coins")
    for folder in pair:
        for ask in (folder.get, folder.outline, folder.file, folder.forget):
            with pytest.raises(SupportSetNotFoundError, match="'coins'"):
                ask("coins")
        assert (len(folder), folder.listed()) == (0, [])


def test_it_tells_what_the_sets_in_memory_tell(pair, tiny_segmenter):
    counterexample = Example(image=JOBS["grass"].support.read_bytes(), counterexample=True, label="coin")
    examples = [example(), example("flag", "flag"), counterexample]
    plain = SupportSets(tiny_segmenter).create(examples, "both")
    pair[0].create(examples, "both")
    (listed,) = pair[1].listed()
    assert set_out(listed) == set_out(pair[1].outline("both")) == set_out(plain)
    assert set_out(pair[0].get("both")) == set_out(plain)
    loaded = FewShotSegmenter(tiny_segmenter.engine)
    assert len(loaded.load_supports(pair[1].file("both"))) == 2


def test_no_addition_is_lost(pair):
    pair[0].create([example()], "coins")

    def add(i: int) -> None:
        pair[i % 2].add("coins", [example("flag", f"flag{i}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(8)))
    assert dict(pair[0].get("coins").supports) == {"coin": 1, **{f"flag{i}": 1 for i in range(8)}}


def test_one_of_two_that_take_a_name_gets_it(pair):
    def create(folder: SetFolder) -> bool:
        try:
            folder.create([example()], "coins")
        except SupportSetError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(create, pair)) == [False, True]


def test_a_set_changes_as_a_whole_or_not_at_all(pair, monkeypatch):
    pair[0].create([example()], "coins")
    with pytest.raises(ImageError, match=r"supports\[1\]"):
        pair[0].add("coins", [example("flag", "flag"), Example(image=b"no picture", mask=b"")])

    def full(self: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="'coins' cannot be written") as told:
        pair[0].add("coins", [example("flag", "flag")])
    assert str(pair[0].folder) not in str(told.value)
    for folder in pair:
        assert dict(folder.get("coins").supports) == {"coin": 1}
    names = {file.name for file in pair[0].folder.iterdir()}
    assert names == {".locks", "coins.safetensors"}


@pytest.mark.parametrize("name", ["../coins", "..", ".hidden", "a/b", "", "a" * 65, "a\0", "/etc/passwd", "coins\n"])
def test_names_lead_nowhere_else(pair, name):
    (pair[0].folder.parent / "coins.safetensors").write_bytes(b"not to be reached")
    for ask in (pair[0].get, pair[0].outline, pair[0].file, pair[0].forget):
        with pytest.raises(SupportSetNotFoundError):
            ask(name)
    with pytest.raises(SupportSetNotFoundError):
        pair[0].add(name, [example()])
    if name:  # none at all is a random one
        with pytest.raises(RequestError):
            pair[0].create([example()], name)


def test_of_many_sets_the_last_used_are_in_memory(tiny_segmenter, tmp_path):
    size = SupportSets(tiny_segmenter).create([example()]).nbytes
    sets = SetFolder(tiny_segmenter, tmp_path, max_bytes=int(5.5 * size))
    content = sets.create([example()], "set0") and sets.file("set0")
    for i in range(1, 50):
        (tmp_path / f"set{i}.safetensors").write_bytes(content)
    assert len(sets) == len(sets.listed()) == 50
    assert sets.held == ("set0",), "to list sets reads none"
    for i in range(50):
        assert dict(sets.get(f"set{i}").supports) == {"coin": 1}
    assert sets.held == tuple(f"set{i}" for i in range(45, 50))
    assert sets.held_bytes == 5 * size
    assert (sets.loads, sets.evictions) == (49, 45)
    sets.get("set45")
    sets.get("set0")
    assert sets.held == ("set47", "set48", "set49", "set45", "set0")
    with pytest.raises(RequestTooLargeError, match="send fewer"):
        sets.create([example(label=f"coin{i}") for i in range(6)], "large")
    assert len(sets) == 50


def test_files_that_are_none_of_this_checkpoint(tiny_segmenter, small_segmenter, tmp_path, caplog):
    sets = SetFolder(tiny_segmenter, tmp_path)
    SetFolder(small_segmenter, tmp_path).create([example()], "other")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no set")
    with pytest.raises(SupportError, match=r"'other'.*checkpoint") as told:
        sets.get("other")
    assert str(tmp_path) not in str(told.value)
    for name in ("broken", "empty"):
        with pytest.raises(SupportError, match=name):
            sets.get(name)
    assert [outline.name for outline in sets.listed()] == ["other"]
    assert "broken" in caplog.text and "empty" in caplog.text
    # The cure: delete it, and make it anew.
    sets.forget("other")
    assert dict(sets.create([example()], "other").supports) == {"coin": 1}


def test_who_waits_too_long_for_anothers_change_is_told(tiny_segmenter, tmp_path):
    slow, quick = SetFolder(tiny_segmenter, tmp_path), SetFolder(tiny_segmenter, tmp_path, seconds=0.05)
    slow.create([example()], "coins")
    with slow._changing("coins"), pytest.raises(BusyError, match=r"0\.05 seconds"):
        quick.add("coins", [example()])
    assert dict(quick.add("coins", [example("flag", "flag")]).supports) == {"coin": 1, "flag": 1}
