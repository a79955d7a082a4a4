"""What is kept in memory, by bytes: one cache for scoring, training and the page."""

from __future__ import annotations

import multiprocessing

from iir_sdk.data.bounded_cache import BoundedCache


def test_it_is_bounded_and_a_sweep_does_not_push_out_what_is_used():
    cache: BoundedCache[int, bytes] = BoundedCache(10, len)
    for i in range(4):
        cache.put(i, b"xxx", only_if_room=True)
    assert [i in cache for i in range(4)] == [True, True, True, False] and cache.full
    assert cache.get(0) == b"xxx"
    cache.put(9, b"xxxx")
    assert 0 in cache and 1 not in cache and cache.nbytes == 10
    cache.put(9, b"x" * 11)
    assert 9 not in cache and cache.nbytes <= 10


def test_what_was_used_last_is_computed_once():
    cache: BoundedCache[str, bytes] = BoundedCache(10, len)
    made = []

    def value(key: str, size: int) -> bytes:
        return cache.computed(key, lambda: made.append(key) or bytes(size))

    for key in ("a", "b", "a", "c", "a", "b"):
        value(key, 4)
    assert made == ["a", "b", "c", "b"]
    # Larger than all: given, and not kept.
    assert value("large", 99) == bytes(99) and "large" not in cache and cache.nbytes == 8


def test_a_fork_while_it_is_in_use_can_use_it():
    cache: BoundedCache[str, bytes] = BoundedCache(10, len)
    with cache._lock:
        child = multiprocessing.get_context("fork").Process(target=cache.put, args=("a", b"x"))
        child.start()
        child.join(20)
    assert child.exitcode == 0
