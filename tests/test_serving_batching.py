"""Requests computed together: who waits, for how long, and that one costs no other its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.engines.tiled import Tiling
from iir_sdk.pictures.load import load_picture
from iir_sdk.results.segmentation import Cut
from iir_sdk.serving.batching import Batcher, Batching

JOBS = {job.name: job for job in read_jobs()}
LONG = 30.0


def run(of: Callable[[], object]) -> None:
    asyncio.run(of())  # type: ignore[arg-type]


def test_what_comes_together_is_computed_together_and_no_more_than_is_allowed():
    sizes: list[int] = []

    def compute(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return [item * 2 for item in items]

    async def ask() -> None:
        batcher = Batcher(compute, Batching(most=4, seconds=LONG), lambda: 8)
        outcomes = await asyncio.gather(*(batcher.run(i) for i in range(8)))
        assert outcomes == [(2 * i, 4) for i in range(8)]
        assert (batcher.batches, batcher.items, batcher.busy_seconds) == (2, 8, 0)

    run(ask)
    assert sizes == [4, 4]


def test_nobody_waits_for_more_than_are_coming():
    async def ask() -> None:
        coming = 1
        batcher = Batcher(lambda items: items, Batching(most=8, seconds=LONG), lambda: coming)
        assert await batcher.run("alone") == ("alone", 1)
        coming = 3
        first, second = (asyncio.create_task(batcher.run(name)) for name in "ab")
        await asyncio.sleep(0.01)
        assert not first.done()
        # The third one turned out to be broken.
        coming = 2
        batcher.recount()
        assert await asyncio.wait_for(asyncio.gather(first, second), 10) == [("a", 2), ("b", 2)]

    run(ask)


def test_the_wait_is_bounded():
    async def ask() -> None:
        batcher = Batcher(lambda items: items, Batching(most=8, seconds=0.01), lambda: 100)
        assert await asyncio.wait_for(batcher.run(1), 10) == (1, 1)

    run(ask)


def test_what_comes_while_a_batch_is_computed_makes_the_next():
    begun, go_on = Event(), Event()

    def compute(items: Sequence[int]) -> Sequence[int]:
        begun.set()
        assert go_on.wait(LONG)
        return items

    async def ask() -> None:
        batcher = Batcher(compute, Batching(most=8, seconds=0), lambda: 9)
        first = asyncio.create_task(batcher.run(0))
        await asyncio.to_thread(begun.wait, LONG)
        others = [asyncio.create_task(batcher.run(i)) for i in range(1, 4)]
        await asyncio.sleep(0)
        others[2].cancel()  # who has gone takes no place
        go_on.set()
        assert await first == (0, 1)
        assert await asyncio.gather(*others[:2]) == [(1, 2), (2, 2)]

    run(ask)


def test_one_that_fails_costs_no_other_its_outcome():
    def compute(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    async def ask() -> None:
        batcher = Batcher(compute, Batching(most=3, seconds=0.01), lambda: 3)
        outcomes = await asyncio.gather(*(batcher.run(i) for i in (1, 0, 2)), return_exceptions=True)
        assert (outcomes[0], outcomes[2]) == ((1.0, 1), (0.5, 1))
        assert isinstance(outcomes[1], ZeroDivisionError)
        assert await batcher.run(4) == (0.25, 1)

    run(ask)


@pytest.fixture(scope="module")
def lite() -> FewShotSegmenter:
    return FewShotSegmenter("iir-lite0", device="cpu", threads=1)


def test_pictures_of_different_sets_together_are_what_each_is_alone(lite):
    """Masks may differ by rounding at their edges: less than one pixel in ten thousand here."""
    sets = []
    for names in (("coins",), ("flag",), ("coins", "eye")):
        sets.append(FewShotSegmenter(lite.engine))
        for name in names:
            sets[-1].add_support(JOBS[name].support, JOBS[name].support_mask, name)
    asked = [by.asked(labels=None, cut=Cut(0.5, 0.0), tiling=Tiling()) for by in sets]
    order = [(0, "coins"), (1, "flag"), (0, "flag"), (2, "eye")]
    pictures = [load_picture(JOBS[name].query) for _, name in order]
    segmented, timings = lite.engine.segment_each([p.pixels for p in pictures], [asked[i].tasks for i, _ in order])
    for (i, name), picture, outcome in zip(order, pictures, segmented, strict=True):
        result, alone = asked[i].result(picture, outcome, timings), sets[i].predict(JOBS[name].query)
        assert result.labels == alone.labels
        assert np.abs(result.leads - alone.leads).max() < 1e-3
        assert (result.masks != alone.masks).mean() < 1e-4


def test_other_runtimes_do_it_set_by_set(lite, monkeypatch):
    from iir_sdk.engines.base import Engine

    one, other = (FewShotSegmenter(lite.engine) for _ in range(2))
    one.add_support(JOBS["coins"].support, JOBS["coins"].support_mask)
    other.add_support(JOBS["flag"].support, JOBS["flag"].support_mask)
    tasks = [by.asked(labels=None, cut=Cut(0.5, 0.0), tiling=Tiling()).tasks for by in (one, other, one)]
    pixels = load_picture(JOBS["coins"].query).pixels
    plain, _ = Engine.segment_each(lite.engine, [pixels] * 3, tasks)
    together, _ = lite.engine.segment_each([pixels] * 3, tasks)
    for a, b in zip(plain, together, strict=True):
        assert np.abs(a.leads - b.leads).max() < 1e-3
    assert np.abs(plain[0].leads - plain[1].leads).max() > 1


def test_files_of_supports_are_compared_to_one_encoding_however_many_are_read(lite, tmp_path, monkeypatch):
    segmenter = FewShotSegmenter(lite.engine)
    segmenter.add_support(JOBS["coins"].support, JOBS["coins"].support_mask)
    segmenter.save_supports(tmp_path / "coins.safetensors")
    FewShotSegmenter(lite.engine).load_supports(tmp_path / "coins.safetensors")
    monkeypatch.setattr(type(lite.engine), "encode", None)
    with ThreadPoolExecutor(2) as pool:
        for loaded in pool.map(
            lambda _: FewShotSegmenter(lite.engine).load_supports(tmp_path / "coins.safetensors"), "ab"
        ):
            assert len(loaded) == 1
