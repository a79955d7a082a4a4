"""Warnings of one thread among others: each collects its own, however their blocks overlap."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from iir_sdk.errors import IirWarning
from iir_sdk.process import collecting_warnings


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with warnings.catch_warnings():
        yield


def test_threads_collect_their_own():
    together = Barrier(4, timeout=60)

    def work(name: int) -> list[str]:
        with collecting_warnings() as messages:
            for i in range(3):
                together.wait()
                warnings.warn(f"{name}.{i}", IirWarning, stacklevel=1)
            together.wait()
        return messages

    with ThreadPoolExecutor(4) as pool:
        collected = list(pool.map(work, range(4)))
    assert collected == [[f"{name}.{i}" for i in range(3)] for name in range(4)]


@pytest.mark.parametrize("action", ["ignore", "always"])
def test_others_are_shown_as_before(action, capsys):
    warnings.showwarning = lambda message, *place: print(f"shown: {message}")
    warnings.simplefilter(action, IirWarning)
    with collecting_warnings() as outer:
        with collecting_warnings() as inner:
            warnings.warn("within", IirWarning, stacklevel=1)
            warnings.warn("another kind", UserWarning, stacklevel=1)
        warnings.warn("around", IirWarning, stacklevel=1)
    warnings.warn("outside", IirWarning, stacklevel=1)
    assert (inner, outer) == (["within"], ["around"])
    shown = ["shown: another kind"] + ["shown: outside"] * (action == "always")
    assert capsys.readouterr().out.splitlines() == shown
