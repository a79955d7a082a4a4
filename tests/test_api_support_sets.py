"""Named sets of supports: kept within a bound, changed as a whole or not at all, whatever threads do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import (
    ImageError,
    MaskError,
    NoSupportError,
    RequestError,
    RequestTooLargeError,
    SupportError,
    SupportSetError,
    SupportSetNotFoundError,
)
from iir_sdk.web.api.support_sets import Example, SupportSets

JOBS = {job.name: job for job in read_jobs()}


def example(name: str = "coins", label: str = "coin", **fields) -> Example:
    job = JOBS[name]
    return Example(image=job.support.read_bytes(), mask=job.support_mask.read_bytes(), label=label, **fields)


@pytest.fixture
def sets(tiny_segmenter: FewShotSegmenter) -> SupportSets:
    return SupportSets(tiny_segmenter)


def test_sets_share_the_network_and_nothing_else(tiny_segmenter):
    tiny_segmenter.add_support(JOBS["eye"].support, JOBS["eye"].support_mask, "eye")
    sets = SupportSets(tiny_segmenter)
    coins, flags = sets.create([example()], "coins"), sets.create([example("flag", "flag")])
    assert coins.segmenter.engine is flags.segmenter.engine is tiny_segmenter.engine
    assert (dict(coins.supports), dict(flags.supports)) == ({"coin": 1}, {"flag": 1})
    assert tiny_segmenter.supports.labels == ("eye",)
    assert sets.get("coins") is coins and sets.get(flags.name) is flags


def test_all_kinds_of_examples(sets):
    coins = JOBS["coins"].support.read_bytes()
    boxed = Example(image=coins, box=(10, 10, 60, 60), label="coin")
    whole = Example(image=JOBS["grass"].support.read_bytes(), counterexample=True, label="coin")
    part = Example(image=coins, region=JOBS["coins"].support_mask.read_bytes(), counterexample=True, label="other")
    made = sets.create([boxed, whole, part, example()])
    assert (dict(made.supports), dict(made.counterexamples)) == ({"coin": 2}, {"coin": 1, "other": 1})
    assert not any(support.picture for support in made.segmenter.supports)
    for wrong in (Example(image=coins, region=coins), Example(image=coins, mask=coins, counterexample=True)):
        with pytest.raises(MaskError, match="counterexample"):
            sets.create([wrong])


def test_a_set_changes_as_a_whole_or_not_at_all(sets):
    with pytest.raises(ImageError, match=r"supports\[1\]: "):
        sets.create([example(), Example(image=b"no picture", mask=b"")], "coins")
    assert sets.listed() == ()
    before = sets.create([example()], "coins")
    with pytest.raises(MaskError, match=r"supports\[1\]: "):
        sets.add("coins", [example(), Example(image=example().image)])
    assert sets.get("coins") is before
    after = sets.add("coins", [example("face", "face")])
    assert sets.get("coins") is after
    # A prediction that took the set before goes on with what was in it.
    assert (dict(before.supports), dict(after.supports)) == ({"coin": 1}, {"coin": 1, "face": 1})


def test_names(sets):
    for name in ("", "../x", "a/b", "a" * 65, ".hidden", "ä", "a\n"):
        with pytest.raises(RequestError, match="name="):
            sets.create([example()], name)
    sets.create([example()], "coins")
    with pytest.raises(SupportSetError, match="already"):
        sets.create([example()], "coins")
    for ask in (sets.get, sets.forget, lambda name: sets.add(name, [example()])):
        with pytest.raises(SupportSetNotFoundError, match="no set 'other'"):
            ask("other")
    sets.forget("coins")
    sets.create([example()], "coins")


def test_what_is_unused_for_longest_makes_room(tiny_segmenter):
    size = SupportSets(tiny_segmenter).create([example()]).nbytes
    sets = SupportSets(tiny_segmenter, max_bytes=int(2.5 * size))
    for name in ("a", "b"):
        sets.create([example()], name)
    sets.get("a")
    sets.create([example()], "c")
    assert [each.name for each in sets.listed()] == ["a", "c"]
    with pytest.raises(RequestTooLargeError, match="fewer supports"):
        sets.create([example()] * 3)
    with pytest.raises(RequestTooLargeError):
        sets.add("a", [example()] * 2)
    assert [each.name for each in sets.listed()] == ["c", "a"]
    assert dict(sets.get("a").supports) == {"coin": 1}
    # A set that grows makes room as well.
    sets.add("a", [example()])
    assert [each.name for each in sets.listed()] == ["a"]


def test_a_set_holds_no_more_than_it_says(embedded):
    made = SupportSets(embedded).create([example()] * 3)
    made.segmenter.predict(JOBS["coins"].query)
    (task,) = made.segmenter._ready.prepared(("coin",))
    prepared = sum(each.element_size() * each.nelement() for each in tensors_of(task.state))
    kept = sum(s.nbytes for s in made.segmenter.supports) + made.segmenter._ready._task("coin").nbytes
    assert made.nbytes / 3 < prepared + kept <= made.nbytes


def tensors_of(state: object) -> list[object]:
    if hasattr(state, "element_size"):
        return [state]
    values = state.values() if isinstance(state, dict) else getattr(state, "__dict__", {}).values()
    return [tensor for value in values for tensor in tensors_of(value)]


def test_preloaded_sets_stay(sets, tmp_path, embedded):
    made = sets.create([example()])
    (tmp_path / "coins.safetensors").write_bytes(made.file())
    preloaded = sets.preload(tmp_path / "coins.safetensors")
    assert (preloaded.name, dict(preloaded.supports)) == ("coins", {"coin": 1})
    query = JOBS["coins"].query
    assert np.array_equal(preloaded.segmenter.predict(query).leads, made.segmenter.predict(query).leads)
    for change in (lambda: sets.forget("coins"), lambda: sets.add("coins", [example()])):
        with pytest.raises(SupportSetError, match="preloaded"):
            change()
    with pytest.raises(SupportSetError, match="already"):
        sets.preload(tmp_path / "coins.safetensors")
    with pytest.raises(SupportError, match="checkpoint"):
        SupportSets(embedded).preload(tmp_path / "coins.safetensors")
    with pytest.raises(NoSupportError):
        sets.create([]).file()


def test_no_addition_is_lost_among_threads(sets):
    sets.create([example()], "coins")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: sets.add("coins", [example("eye", f"eye{i}")]), range(16)))
    assert len(sets.get("coins").supports) == 17


def test_questions_for_sets_that_are_not_there_leave_nothing(sets):
    for i in range(10):
        with pytest.raises(SupportSetNotFoundError):
            sets.add(f"no{i}", [example()])
    assert not sets._growing
